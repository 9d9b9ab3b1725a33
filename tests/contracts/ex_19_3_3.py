"""19.3.3: a deployment guide, read as it stands; a folder with a DEPLOYMENT.md, or the file.

Readings accepted: any wording and order of headings, or a step or label in their place; steps as a numbered list, as
headings or as commands; variables as a table, a list, definitions, headings or a commented block; a click path in a
platform's dashboard in place of a command. The form is checked; read the content yourself: only somebody who does not
know the project can tell whether it leads them there.
"""

from __future__ import annotations

import re

from tests.kit import markdown
from tests.kit.contract import check, expect
from tests.kit.files import Files, Place
from tests.kit.images import KEY, SECRET
from tests.kit.markdown import Section

WORTH_THINKING = "a test runs every command of ours; which of yours did nobody type since it was written?"

NEEDS = "19.3.3 bullet 1"
STEPS = "19.3.3 bullet 2"
VARIABLES = "19.3.3 bullet 3"
VERIFY = "19.3.3 bullet 4"
BACK = "19.3.3 bullet 5"
NAME = re.compile(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b|\bPORT\b|\bHOST\b|\bDEBUG\b")
COMMAND = re.compile(r"^(?:sudo )?[a-z][\w./-]+ \S|^\./\S|^\S+\.exe ")
CLICK = re.compile(r"\b(?:click|select|press|choose|open)\b.*\b(?:button|tab|menu|dashboard|deploys?|page)\b", re.I)
NO_VALUE = re.compile(
    r"[<$.*\[{]|^(?:your|my|sk-your|change|x{3,}|replace|example|secret|key)\b|^$|your"
    r"|^[\w-]+:(?:latest|\d+)\b|^secretref:",  # where a platform keeps it, not what it is
    re.I,
)


def document(app: Files) -> list[Section]:
    names = ("DEPLOYMENT.md", "exercise_3_19_3_solution.md", "Deployment.md", "deployment.md", "docs/DEPLOYMENT.md")
    return markdown.read(app.find("DEPLOYMENT.md", names, r"\.(?:md|markdown)$"))


def section(app: Files, words: str, what: str, *, when: str) -> Section:
    """Return the section whose heading has one of the words; without one the check is missed."""
    sections = document(app)
    found = [s for s in sections if re.search(words, s.title, re.IGNORECASE) and s.level > (len(sections) > 2)]
    found = found or [s for s in sections[2:] if re.search(words, s.title, re.IGNORECASE)]
    found = found or [s for s in sections[1:] if not s.inner and any(_told(line, words) for line in s.items + s.prose)]
    headings = ", ".join(s.title for s in sections if s.title)
    place = Place(sections[0].place.file)
    expect(
        bool(found), when=when, expected=f"a heading about {what}", came=f"headings: {headings or 'none'}", seen=place
    )
    return max(found, key=lambda s: len(s.items) + len(s.commands))


def _told(line: str, words: str) -> bool:
    """Tell whether a line says it without a heading of its own: as a step with its command, or after a label."""
    lead = line.partition(":")[0]
    return bool(re.search(words, lead, re.I)) and (":" in line or "`" in line) and len(line.split()) >= 4


def explained(found: Section, whole: list[Section]) -> list[str]:
    """Return the lines that explain a variable: items, sentences, headings with their text, comments in code."""
    lines = [line for line in (*found.items, *found.prose) if NAME.search(line)]
    under = [s for s in whole if s.title in found.inner and NAME.search(s.title)]
    lines += [f"{s.title} {' '.join((*s.prose, *s.items))}" for s in under]
    comment = ""
    for line in (line for block in found.code for line in block.text.splitlines()):
        name, _, beside = line.partition("#")
        if NAME.search(name) and len(f"{comment} {beside}".split()) >= 2:
            lines.append(f"{name} {comment} {beside}")
        comment = line.strip("# ") if line.strip().startswith("#") else ""
    return lines


def acts(found: Section) -> list[str]:
    """Return what a reader can do: commands, and clicks in a dashboard."""
    return [c for c in found.commands if COMMAND.search(c)] + [t for t in found.text.splitlines() if CLICK.search(t)]


@check(
    "Prerequisites for deployment",
    chapter=NEEDS,
    needs={"files"},
    hints=(
        "What must a person have before the first step?",
        "A heading of its own, and a list: accounts, tools with versions, keys.",
        "## Prerequisites, with a line each for the platform's account, its command-line tool, and the OpenAI key",
    ),
)
def prerequisites(app: Files) -> None:
    when = "somebody starts who has never seen the project"
    found = section(app, r"prerequisit|require|before you|you(?:'ll)? need|what.*need", "prerequisites", when=when)
    in_sentences = sum(len(re.findall(r",|;|\band\b", line)) + 1 for line in found.prose if len(line.split()) >= 4)
    count = max(len(found.items), in_sentences)
    expect(count >= 2, when=when, expected="a list of them", came=f"{count} items", seen=found.place)


@check(
    "Step-by-step deployment instructions",
    chapter=STEPS,
    needs={"files"},
    hints=(
        "Could somebody do it line by line, without asking?",
        "Numbered steps, each with the command to type or the place to click.",
        "1. Log in: `fly auth login`   2. Create the app: `fly launch --no-deploy`   3. ...",
    ),
)
def steps(app: Files) -> None:
    when = "somebody follows it line by line"
    one_by_one = [s for s in document(app) if re.match(r"step\s*\d", s.title, re.I)]
    if len(one_by_one) >= 2 and any(acts(s) for s in one_by_one):
        return
    found = section(app, r"deploy|steps?\b|install|instruction|guide|how to", "how to deploy", when=when)
    count = max(
        len(found.numbered), len(found.code), len([t for t in found.inner if re.match(r"(?:step )?\d", t, re.I)])
    )
    expect(count >= 2, when=when, expected="two steps or more, one by one", came=f"{count}", seen=found.place)
    expect(bool(acts(found)), when=when, expected="what to type or to click", came="no command", seen=found.place)


@check(
    "Required environment variables (with descriptions, not values)",
    chapter=VARIABLES,
    needs={"files"},
    hints=(
        "Which variables does the app read, and what is each of them for?",
        "A table: the name, what it does, whether it must be set.",
        "| `OPENAI_API_KEY` | the key of the model's API, from platform.openai.com | required |",
    ),
)
def variables(app: Files) -> None:
    when = "somebody sets up the environment"
    found = section(app, r"variable|environment|config|setting|secrets?\b", "environment variables", when=when)
    lines = explained(found, document(app))
    named = {name for line in lines for name in NAME.findall(line)}
    expect(
        "OPENAI_API_KEY" in named, when=when, expected="OPENAI_API_KEY", came=", ".join(sorted(named)), seen=found.place
    )
    bare = [line for line in lines if len(re.findall(r"[a-z]{2,}", re.sub(r"`[^`]*`", "", line))) < 2]
    expect(
        not bare, when=when, expected="each name with what it is for", came=bare[0] if bare else "", seen=found.place
    )


@check(
    "Required environment variables (with descriptions, not values): no secret in it",
    chapter=VARIABLES,
    needs={"files"},
    hints=(
        "The guide goes into git: would you show it to a stranger?",
        "Names, and placeholders like <your key>; the values live in the platform's settings.",
        "fly secrets set OPENAI_API_KEY=<your key>",
    ),
)
def no_values(app: Files) -> None:
    whole = document(app)
    for found in whole:
        for line in (*found.commands, *found.text.splitlines()):
            given = [v for n, v in re.findall(r"\b([A-Z][A-Z0-9_]*)=[\"']?([^\s\"'`|]*)", line) if SECRET.search(n)]
            value = next((v for v in given if not NO_VALUE.search(v)), None)
            key = KEY.search(line)
            expect(
                value is None and (key is None or bool(NO_VALUE.search(key[0].removeprefix("sk-")))),
                when="git push",
                expected="names and placeholders, no values",
                came="what looks like a secret",
                seen=Place(found.place.file, found.place.line, f"section {found.title!r}"),
            )


@check(
    "How to verify the deployment succeeded",
    chapter=VERIFY,
    needs={"files"},
    hints=(
        "How do they know that it works, and not only that nothing complained?",
        "A command against the deployed service, and what it must answer.",
        '`curl https://.../health` answers 200 and {"status": "healthy"}; a chat without a key answers 401',
    ),
)
def verification(app: Files) -> None:
    when = "the deployment has run through"
    words = r"verif|check|smoke|test|confirm|work|success|is it (?:up|live|running)|healthy?\b"
    found = section(app, words, "how to verify", when=when)
    expect(bool(acts(found)), when=when, expected="a command that asks the service", came="none", seen=found.place)
    outcome = (
        r"\b(?:[2345]\d\d|ok|healthy|expect\w*|should|must|answers?|returns?|responds?|prints?|shows?|see|fails?)\b"
    )
    said = found.text + "\n" + "\n".join(block.text for block in found.code)
    expect(
        bool(re.search(outcome, said, re.IGNORECASE)),
        when=when,
        expected="what it must answer",
        came="a command, and no word on what to expect",
        seen=found.place,
    )


@check(
    "How to roll back if something goes wrong",
    chapter=BACK,
    needs={"files"},
    hints=(
        "It is broken, and it is late: what do they type?",
        "The command that brings the last good version back; building an old one anew is slow, and may fail as well.",
        "`fly releases` and `fly deploy --image registry.fly.io/app:<last good>`, then verify again",
    ),
)
def roll_back(app: Files) -> None:
    when = "the new version does not work"
    words = r"roll(?:ing|ed)?[ -]?back|revert|undo|wrong|go(?:ing)? back|previous|restore|breaks"
    found = section(app, words, "rolling back", when=when)
    expect(
        bool(acts(found)),
        when=when,
        expected="the command (or the click) that brings the last good version back",
        came="none",
        seen=found.place,
    )
