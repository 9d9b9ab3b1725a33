"""19.3.1: the notes on a deployment, read as they stand; a folder, or the file.

Readings accepted: any platform that the checks know by name, or a heading or label that names another; reasons in
prose, a list or a table; headings, labels in bold or plain sentences; code fenced or indented; "nothing" as an answer
to what was changed; an address with a placeholder in angle brackets, for notes that are published without giving the
address away. The form is checked; read the content yourself, and ask the service.
"""

from __future__ import annotations

import re

from tests.kit import markdown
from tests.kit.contract import NotChecked, check, expect
from tests.kit.files import Files, Place
from tests.kit.markdown import Section

WORTH_THINKING = (
    "ours asks the service itself before and after (preflight, verify): who repeats your checks at the next deployment?"
)

PLATFORM = re.compile(
    r"\b(?:render|railway|fly\.io|heroku|cloud run|app runner|google cloud|gcp|aws|azure|digital ?ocean|koyeb|"
    r"hetzner|vercel|northflank|scaleway|linode|kubernetes|modal|hugging ?face)\b",
    re.IGNORECASE,
)
NAMED = re.compile(r"^\W*(?:\w+ )?(?:platform|provider|host(?:ing|er|ed)?|server|where it runs)\b", re.I)
PROPER_NAME = re.compile(
    r"\S[ *_`|]+(?!(?:GitHub|GitLab|Docker|FastAPI|OpenAI|Python|URL|API|I)\b)[A-Z]\w+|\b[a-z]\w+\.(?:io|com|app|dev)\b"
)
REASON = re.compile(
    r"\b(?:because|since|so that|reasons?|in order to|which lets|chose it for|due to|thanks to|already|free|"
    r"cheap\w*|eas(?:y|ier|iest)|simpl\w+|advantages?|allows?|lets|supports?|prefer\w*|"
    r"wanted|needs?|why|rationale|motivation|benefits?|best|as (?:it|we|I))\b",
    re.IGNORECASE,
)
CHANGED = re.compile(
    r"^\W*[^:*|]*(?:config|chang|setting|environment|adapt|differ)[^:*|]*(?:\*\*|:|\|)"
    r"|\b(?:had to|I|we|was|were|must)\b.*\b(?:chang|adapt|configur|replac|mov)\w*",
    re.I,
)
URL = re.compile(r"https://[^\s)\"'`|]+(?:<[^>]*>[^\s)\"'`|]*)?|https://<[^>]*>[^\s)\"'`|]*")
NOT_PUBLIC = re.compile(r"//(?:localhost|127\.|0\.0\.0\.0|10\.|192\.168\.|\[?::1|[\w.-]*\bexample\.)", re.I)
PLACES = re.compile(
    r"//(?:[\w-]+\.)*(?:platform\.openai|openai|docs|github|render\.com/?(?:docs)?$|fly\.io/docs)", re.I
)


def notes(app: Files) -> list[Section]:
    names = ("exercise_1_19_3_solution.md", "DEPLOYED.md", "DEPLOY.md", "deployment.md", "DEPLOYMENT.md", "README.md")
    return markdown.read(app.find("notes on the deployment", names, r"\.(?:md|markdown)$"))


def lines(app: Files) -> tuple[list[str], Place]:
    """Return every line of prose, list and table, and the file."""
    sections = notes(app)
    roots = [s for s in sections if not any(s.title in other.inner for other in sections)]
    said = [line for s in roots for line in (s.title, *s.text.splitlines()) if not line.lstrip().startswith("<!--")]
    return said, Place(sections[0].place.file)


def addresses(app: Files) -> list[str]:
    """Return the addresses that may be the deployed agent's."""
    sections = notes(app)
    text = "\n".join([*lines(app)[0], *(block.text for s in sections for block in s.code)])
    return [url for url in URL.findall(text) if not NOT_PUBLIC.search(url) and not PLACES.search(url)]


@check(
    "Which platform you chose and why",
    chapter="19.3.1 bullet 1",
    needs={"files"},
    hints=(
        "Name it, and say what spoke for it.",
        "One sentence with because: what it offers that the others do not, or what it costs.",
        "I chose Render because it builds my Dockerfile and checks /health before it switches over.",
    ),
)
def platform(app: Files) -> None:
    said, place = lines(app)
    when = "somebody asks where it runs"
    known = any(PLATFORM.search(line) for line in said)
    labelled = [line for line in said if NAMED.search(line)]
    under = [line for s in notes(app) if NAMED.search(s.title) for line in s.items + s.prose]
    named = any(PROPER_NAME.search(line) for line in labelled + under)
    expect(known or named, when=when, expected="the platform's name", came="none", seen=place)
    text = "\n".join(said)
    why = bool(REASON.search(text)) or any(re.search(r"\bwhy\b", s.title, re.I) and s.items for s in notes(app))
    expect(why, when=when, expected="why you chose it", came="the name, and no reason", seen=place)


@check(
    "Any configuration changes you had to make",
    chapter="19.3.1 bullet 2",
    needs={"files"},
    hints=(
        "What is different from how it runs on your machine?",
        "The port, the host, the environment variables, the start command; or that nothing had to be changed.",
        "## Configuration changes   - PORT comes from the platform   - OPENAI_API_KEY is a secret of the service",
    ),
)
def changes(app: Files) -> None:
    found = [s for s in notes(app) if re.search(r"config|chang|setting|environment|adapt|differen", s.title, re.I)]
    when = "somebody deploys it a second time"
    told = [line for line in lines(app)[0] if CHANGED.search(line)]
    listed = any(s.items or s.code for s in notes(app))  # "Changes:", and then a list
    if not found and any(len(line.split()) >= 5 or (listed and line.rstrip(" *").endswith(":")) for line in told):
        return
    expect(bool(found), when=when, expected="a heading about what was changed", came="none", seen=lines(app)[1])
    section = max(found, key=lambda s: len(s.items) + len(s.prose) + len(s.code))
    said = bool(section.items or section.code) or any(len(line.split()) >= 4 for line in section.prose)
    expect(
        said, when=when, expected="what was changed, or that nothing was", came="a heading alone", seen=section.place
    )


@check(
    "The public URL of your deployed agent",
    chapter="19.3.1 bullet 3",
    needs={"files"},
    hints=(
        "Where can others reach it?",
        "The address that the platform gave it, with https; localhost is only yours.",
        "Public URL: https://my-agent.onrender.com",
    ),
)
def public_url(app: Files) -> None:
    said, place = lines(app)
    local = next((line for line in said if re.search(r"localhost|127\.0\.0\.1|http://", line)), "no address")
    expect(bool(addresses(app)), when="somebody wants to use it", expected="https://...", came=local, seen=place)


@check(
    "Test it with curl from your local machine",
    chapter="19.3.1",
    needs={"files"},
    hints=(
        "How do you know that it works from outside?",
        "The curl command with the public address, and what came back.",
        "curl https://my-agent.onrender.com/health   ->  200",
    ),
)
def curl(app: Files) -> None:
    sections = notes(app)
    if not addresses(app):
        raise NotChecked("there is no public URL to test")
    commands = [re.sub(r"\\\n", " ", block.text) for s in sections for block in s.code]
    commands += [command for s in sections for command in s.commands]
    asked = [
        c
        for c in commands
        if re.search(r"\b(?:curl(?:\.exe)?|http|https|wget|Invoke-WebRequest|irm|Invoke-RestMethod) ", c)
        and URL.search(c)
    ]
    asked = [c for c in asked if any(not NOT_PUBLIC.search(url) for url in URL.findall(c))]
    place = lines(app)[1]
    when = "you test it from your machine"
    expect(bool(asked), when=when, expected="a curl command with the public URL", came="none", seen=place)
    text = "\n".join([*lines(app)[0], *commands])
    outcome = r"\b[2345]\d\d\b|\bhealthy\b|\bok\b|answer|return|respon|output"
    expect(
        bool(re.search(outcome, text, re.I)), when=when, expected="what came back", came="the command alone", seen=place
    )
