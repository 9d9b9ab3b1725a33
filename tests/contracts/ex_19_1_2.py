"""19.1.2: the Dockerfile in stages, read as it stands; a folder, or the file.

Readings accepted: packages handed over as a virtual environment, with --user, --prefix or --target, as site-packages
or as wheels; an image of uv's or one's own as the builder. How much it saves is for `docker images` to say, and what
that means for a person: nothing is built here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from tests.kit import images
from tests.kit.contract import NotChecked, check, expect
from tests.kit.dockerfile import Copy, Stage, split
from tests.kit.files import Files
from tests.kit.images import Build, build_of

WORTH_THINKING = (
    "ours compiles the bytecode in the first stage, because a read-only container cannot; where does yours do it?"
)

CHAPTER = "19.1.2"
TOOLS = re.compile(r"\b(?:build-essential|gcc|g\+\+|clang|cmake|make|cargo|rustc|python3?-dev|libc6?-dev|musl-dev)\b")
SITE = re.compile(r"/usr/local/lib(?:/python3[.\w*]*(?:/site-packages)?)?/?$|/usr/local/?$")


def build(app: Files) -> Build:
    return build_of(app, 2)


def handed_over(here: Build) -> list[tuple[Copy, Stage]]:
    """Return what the last stage copies from earlier ones."""
    copies = [copy for stage in here.final.lineage() for copy in (*stage.copies, *mounted(stage))]
    found = [(copy, here.stage(copy.source_stage)) for copy in copies]
    return [(copy, stage) for copy, stage in found if stage]


def mounted(stage: Stage) -> Iterator[Copy]:
    """Yield what a stage's RUNs mount of other stages: there while they run, which is enough to install from it."""
    for run in stage.runs:
        for mount in run.flags.get("mount", "").splitlines():
            given = dict(part.partition("=")[::2] for part in mount.split(","))
            if "from" in given:
                source, to = (given.get(a) or given.get(b) or "/" for a, b in (("source", "src"), ("target", "dst")))
                yield Copy((source,), to, given["from"], run.place)


def installs(stage: Stage) -> list[list[str]]:
    """Return the words of each command that installs packages."""
    commands = [split(re.sub(r"--mount=\S+\s+", "", command)) for command in stage.commands()]
    return [words for words in commands if {"install", "sync"} & set(words) and {"pip", "pip3", "uv"} & names(words)]


def names(words: list[str]) -> set[str]:
    return {posixpath.basename(word) for word in words}


def minor(image: str) -> str:
    """Return the Python that an image's tag names, "3.13"; nothing when it names none."""
    match = re.search(r"python\D{0,2}(3\.\d+)", image.partition("@")[0])
    return match[1] if match else ""


@check(
    "Convert it to a multi-stage build",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "How many FROM does the file have?",
        "One stage installs, another one runs: FROM ... AS builder, and a second FROM.",
        "FROM python:3.13-slim AS builder  ...  FROM python:3.13-slim  ...  COPY --from=builder ...",
    ),
)
def two_stages(app: Files) -> None:
    here = build(app)
    expect(
        len(here.dockerfile.stages) > 1,
        when="the image is built",
        expected="two FROM or more",
        came=f"{len(here.dockerfile.stages)} FROM",
        seen=here.final.place,
    )


@check(
    "Convert it to a multi-stage build: the last stage takes over what the first one made",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "What does the last stage get from the one before?",
        "COPY --from= takes files from another stage; installing again in the last one makes the first one useless.",
        "COPY --from=builder /opt/venv /opt/venv",
    ),
)
def takes_over(app: Files) -> None:
    here = build(app)
    if len(here.dockerfile.stages) < 2:
        raise NotChecked("there is one stage")
    expect(
        bool(handed_over(here)),
        when="the image is built",
        expected="COPY --from=<an earlier stage> in the last stage",
        came="none, so the earlier stages leave nothing behind",
        seen=here.final.place,
    )
    again = [words for words in installs(here.final) if not wheels(words, here)]
    expect(
        not again,
        when="the image is built",
        expected="the last stage takes the packages over",
        came=f"it installs them again: {' '.join(again[0]) if again else ''}",
        seen=here.final.place,
    )


def wheels(words: list[str], here: Build) -> bool:
    """Tell whether a pip install takes wheels that are there already."""
    brought = [copy.to for copy, _ in handed_over(here)]
    return "--no-index" in words or any(
        word.endswith(".whl") or word.startswith("--find-links") or any(images.under(word, to) for to in brought)
        for word, before in zip(words[1:], words, strict=False)
        if before not in ("-r", "--requirement")
    )


@check(
    "Convert it to a multi-stage build: and the last stage finds it",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "Where do the packages stand in the last stage, and does its Python, as its user, look there?",
        "A virtual environment must be on PATH; /root/.local is closed to every other user.",
        "ENV PATH=/opt/venv/bin:$PATH  and  COPY --from=builder /opt/venv /opt/venv",
    ),
)
def found(app: Files) -> None:
    here = build(app)
    copies = handed_over(here)
    if not copies:
        raise NotChecked("nothing is copied from an earlier stage")
    if any(wheels(words, here) for words in installs(here.final)):
        return
    made = [(place, kind) for stage in {id(s): s for _, s in copies}.values() for place, kind in packages(stage)]
    if not made:
        raise NotChecked("how the earlier stages install is nothing the checks know")
    for place, kind in made:
        for copy, _ in copies:
            for to in arrives(place, copy):
                if problem := not_found(here.final, to, kind, place):
                    expect(False, when="docker run", expected="the packages are found", came=problem, seen=copy.place)
                return
    if any(on_path(here.final, copy) for copy, _ in copies):
        return  # an environment that another tool made
    expect(
        False,
        when="docker run",
        expected=f"the packages of the earlier stage ({made[0][0]}) are copied",
        came=f"only {', '.join(s for copy, _ in copies for s in copy.sources)}",
        seen=copies[0][0].place,
    )


def on_path(final: Stage, copy: Copy) -> bool:
    """Tell whether the last stage looks for programs in what a COPY brings."""
    programs = f"{copy.to.rstrip('/')}/bin"
    return programs in final.env.get("PATH", "").split(":")


def packages(stage: Stage) -> Iterator[tuple[str, str]]:
    """Yield where a stage's commands put packages, and how: venv, user, prefix, target or system."""
    for command in stage.commands():
        if "sync" not in command and (place := images.environment_made(command, stage.workdir)):
            yield place, "venv"
    for words in installs(stage):
        text = " ".join(words)
        if match := re.search(r"--(prefix|target|root)[= ](\S+)|-(t) (\S+)", text):
            place = posixpath.normpath(posixpath.join(stage.workdir, match[2] or match[4]))
            yield place, "prefix" if match[1] == "prefix" else "target"
        elif "--user" in words:
            yield (stage.env.get("PYTHONUSERBASE") or posixpath.join(home(stage), ".local")), "user"
        elif "uv" in names(words) and "sync" in words:
            yield stage.env.get("UV_PROJECT_ENVIRONMENT") or posixpath.join(stage.workdir, ".venv"), "venv"
        else:
            yield "/usr/local", "system"


def home(stage: Stage) -> str:
    """Return the home of a stage's user, as Debian makes it."""
    user = stage.user.partition(":")[0]
    return stage.env.get("HOME") or ("/root" if user in ("", "0", "root") else f"/home/{user}")


def arrives(place: str, copy: Copy) -> Iterator[str]:
    """Yield where `place` of the earlier stage stands after a COPY, if that takes it along."""
    for source in copy.sources:
        source = "/" + source.strip("/")
        if place == source or place.startswith(source.rstrip("/") + "/"):
            yield posixpath.normpath(copy.to + place.removeprefix(source.rstrip("/")))
        elif place == "/usr/local" and SITE.match(source):
            yield posixpath.normpath(copy.to)


def not_found(final: Stage, to: str, kind: str, place: str) -> str:
    """Say why the last stage does not find packages that stand at `to`; nothing when it does."""
    user, path = final.user.partition(":")[0], final.env.get("PATH", "").split(":")
    started = (final.starts() or [""])[0]
    if to.startswith("/root") and user not in ("", "0", "root"):
        return f"{to} lies in /root, which only root may enter, and USER is {user}"
    if kind == "venv":
        if f"{to}/bin" not in path and not any(word.startswith(f"{to}/") for word in final.starts()):
            return f"{to}/bin is not on PATH, and {started} is not in it"
        if to != place and not re.match(r"python", posixpath.basename(started)):
            return f"its scripts name {place}/bin/python, and it stands at {to} now"
    if kind == "user" and final.env.get("PYTHONUSERBASE") != to and to != posixpath.join(home(final), ".local"):
        return f"{user or 'root'} looks in {posixpath.join(home(final), '.local')}, and they are at {to}"
    pythonpath = final.env.get("PYTHONPATH", "").split(":")
    if kind == "target" and to not in (*pythonpath, final.workdir) and not to.endswith("site-packages"):
        return f"{to} is not in PYTHONPATH"
    if kind == "prefix" and to not in ("/usr/local", "/usr") and not any(p.startswith(to) for p in pythonpath if p):
        return f"Python does not look in {to}: /usr/local is where it does"
    if kind == "system" and not to.startswith("/usr/local"):
        return f"Python does not look in {to}: /usr/local is where they come from"
    return ""


@check(
    "Convert it to a multi-stage build: with the same Python in both",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "Which Python installs, and which one runs?",
        "Packages belong to one minor version: their folder carries its number, and compiled ones load nowhere else.",
        "Both stages FROM the same tag; an ARG before the first FROM keeps them alike.",
    ),
)
def same_python(app: Files) -> None:
    here = build(app)
    final = minor(here.final.image())
    others = [(stage, minor(stage.image())) for _, stage in handed_over(here)]
    if not final or not any(other for _, other in others):
        raise NotChecked("the tags do not name Python's minor version")
    for stage, other in others:
        expect(
            other in ("", final),
            when="the packages of one stage are used by the other",
            expected=f"Python {final} in both",
            came=f"Python {other} in the stage {stage.alias or stage.base}",
            seen=stage.place,
        )


@check(
    "Compare the image sizes: the last stage carries no build tools",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "What is in the final image that only building needs?",
        "The last FROM is a slim one, and compilers are installed in the stage before.",
        "Move the apt-get install build-essential to the builder; let the last stage be FROM python:3.13-slim",
    ),
)
def no_build_tools(app: Files) -> None:
    final = build(app).final
    expect(
        bool(re.search(r"slim|alpine|distroless|chainguard", final.image())),
        when="docker images",
        expected="a slim image as the last FROM",
        came=f"FROM {final.image()}, which brings the build tools along",
        seen=final.lineage()[0].place,
    )
    tools = [c for c in final.commands() if TOOLS.search(c) and re.search(r"\b(?:install|add)\b", c)]
    expect(
        not tools,
        when="docker images",
        expected="no compiler in the last stage",
        came=tools[0] if tools else "",
        seen=final.place,
    )


@check(
    "Take the Dockerfile from Exercise 1: still without root",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "Users and USER end with their stage.",
        "The last stage starts as root again: it needs its own useradd and its own USER.",
        "After the second FROM:  RUN useradd agent  ...  USER agent",
    ),
)
def non_root(app: Files) -> None:
    here = build(app)
    images.expect_non_root(here)
    expect(
        images.user_is_known(here),
        when="docker run",
        expected="a user made in the last stage, or a number",
        came="unable to find user, says Docker, and does not start",
        seen=here.final.user_place,
    )


@check(
    "Take the Dockerfile from Exercise 1: it still starts",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "Is the program itself in the last stage?",
        "COPY the source in the last stage, or from the stage that has it, and name the command there.",
        'COPY my_agent.py .  and  CMD ["python", "my_agent.py"]  after the last FROM',
    ),
)
def starts(app: Files) -> None:
    images.expect_command(build(app))


@check(
    "Take the Dockerfile from Exercise 1: still without a secret",
    chapter=CHAPTER,
    needs={"files"},
    hints=(
        "A stage that is not shipped still lies on the machine that built it, and in its cache.",
        "No key in ENV or ARG, no .env among what is copied, in any stage.",
        "RUN --mount=type=secret where building needs one; docker run --env-file .env where running does",
    ),
)
def no_secret(app: Files) -> None:
    images.expect_no_secrets(build(app))


@check(
    "Take the Dockerfile from Exercise 1: and copying the folder leaves .env out",
    chapter=CHAPTER,
    needs={"files"},
    beyond=True,  # the chapter speaks of .gitignore only
    hints=(
        "What git ignores is copied all the same, and lies in the builder's cache.",
        "COPY . . takes .env along unless .dockerignore names it, in every stage.",
        "printf '.env\\n' >> .dockerignore",
    ),
)
def env_left_out(app: Files) -> None:
    images.expect_env_left_out(build(app))
