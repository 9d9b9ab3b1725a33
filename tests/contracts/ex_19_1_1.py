"""19.1.1: a Dockerfile, its requirements and a .gitignore, read as they stand; a folder, or one of its files.

Readings accepted: any registry's python:...-slim, or one that is slimmer (-alpine), of any version; pip or uv; a user
by name or by number; a virtual environment under any of the usual names; shell form or JSON form; one stage or several.
The folder that it is built from is the nearest one that holds everything that is copied. Whether it runs is for
`docker run` to say: nothing is built here.
"""

from __future__ import annotations

import codecs
import re

from tests.kit import images
from tests.kit.contract import NotChecked, check, expect
from tests.kit.files import Files, Place, git_ignores
from tests.kit.images import Build, build_of

WORTH_THINKING = (
    "ours has no key, port or host in the image, so one image serves everywhere; does yours run with `docker run -e`?"
)

SLIM = "19.1.1 bullet 1"
PINNED = "19.1.1 bullet 2"
USER = "19.1.1 bullet 3"
IGNORE = "19.1.1 bullet 4"
REQUIREMENTS = ("exercise_1_requirements.txt", "requirements.txt")
# Packages that have needed one another in every release for years: who lists only the first has not frozen.
BRINGS = (
    ("fastapi", "starlette"),
    ("starlette", "anyio"),
    ("pydantic", "pydantic-core"),
    ("httpx", "httpcore"),
    ("uvicorn", "h11"),
    ("openai", "jiter"),
    ("langgraph", "langgraph-checkpoint"),
    ("langchain-core", "langsmith"),
    ("flask", "werkzeug"),
    ("requests", "urllib3"),
)
VENVS = ("venv/bin/python", ".venv/bin/python", "env/bin/python")
CACHE = "__pycache__/my_agent.cpython-313.pyc"


def build(app: Files) -> Build:
    return build_of(app, 1)


def requirements(app: Files) -> Place:
    """Return the file that the image installs, else one that lies in the folder."""
    file = images.requirements_file(build(app), app)
    return Place(file or app.find("requirements.txt", REQUIREMENTS, r"requirements.*\.txt$"))


def decoded(raw: bytes) -> str:
    """Decode as pip does: by the byte order mark, which PowerShell's `>` puts before UTF-16."""
    by_mark = "utf-16" if raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    return raw.decode(by_mark, errors="replace")


def packages(place: Place) -> dict[str, str]:
    """Return name and the rest of each line that names a package."""
    text = re.sub(r"\\\n", " ", decoded(place.file.read_bytes()))
    lines = (re.sub(r"(?:^|\s)#.*", "", line).strip() for line in text.splitlines())
    found = {}
    for line in lines:
        if line and not re.match(r"-(?!e)|--(?!editable)", line):
            match = re.match(r"([\w.-]+)(?:\[[^\]]*\])?\s*(.*)", line)
            name, rest = (match[1], match[2]) if match else (line, "")
            found[re.sub(r"[-_.]+", "-", name).lower()] = rest
    return found


@check(
    "Use a slim Python base image",
    chapter=SLIM,
    needs={"files"},
    hints=(
        "Look at the FROM of the stage that becomes the image.",
        "The python images have a tag that ends in -slim: Debian without the build tools; -alpine is less.",
        "FROM python:3.13-slim",
    ),
)
def slim_base(app: Files) -> None:
    final = build(app).final
    image = final.image().partition("@")[0]
    expect(
        "python" in image and bool(re.search("slim|alpine", image.rpartition(":")[2])),
        when="the image is built",
        expected="FROM python:<version>-slim",
        came=f"FROM {final.image()}",
        seen=final.lineage()[0].place,
    )


@check(
    "Use a slim Python base image: of a version that is named",
    chapter=SLIM,
    needs={"files"},
    beyond=True,  # the chapter pins the packages, and says nothing of Python
    hints=(
        "Which Python will the image have when somebody builds it next year?",
        "A tag without a number, latest, or python:3-slim moves to a new Python by itself.",
        "FROM python:3.13.12-slim-trixie",
    ),
)
def base_version(app: Files) -> None:
    final = build(app).final
    image, _, digest = final.image().partition("@")
    expect(
        bool(digest) or bool(re.search(r"3\.\d+", image.rpartition("/")[2].partition(":")[2])),
        when="the same file is built a year later",
        expected="a tag with at least Python's minor version, such as 3.13-slim",
        came=f"FROM {final.image()}",
        seen=final.lineage()[0].place,
    )


@check(
    "Generate requirements.txt with pip freeze (pinned versions)",
    chapter=PINNED,
    needs={"files"},
    hints=(
        "Every line of requirements.txt names one version.",
        "== and a whole version, on every line; not >=, not nothing.",
        "pip freeze > requirements.txt",
    ),
)
def pinned(app: Files) -> None:
    place = requirements(app)
    found = packages(place)
    expect(bool(found), when="pip install -r", expected="packages in it", came="none", seen=place)
    loose = [name + rest for name, rest in found.items() if not re.match(r"(==\s*[^*\s]+(?:[\s;]|$)|@\s)", rest)]
    expect(
        not loose,
        when="pip install -r, today and in a month",
        expected="a version with == on every line",
        came=f"{len(loose)} of {len(found)} without: {', '.join(loose[:3])}",
        seen=place,
    )


@check(
    "Generate requirements.txt with pip freeze (pinned versions): also those that others bring",
    chapter=PINNED,
    needs={"files"},
    hints=(
        "The list holds what you asked for; what that needs in turn is still chosen at build time.",
        "pip freeze lists everything that is installed, not only what you named.",
        "In a fresh venv: pip install what-you-need && pip freeze > requirements.txt",
    ),
)
def frozen(app: Files) -> None:
    place = requirements(app)
    found = packages(place)
    told = [(first, second) for first, second in BRINGS if first in found]
    if not told:
        raise NotChecked("none of the packages in it is one of which the checks know what it needs")
    missing = [f"{first} needs {second}" for first, second in told if second not in found]
    expect(
        not missing,
        when="pip install -r, today and in a month",
        expected="the packages that your packages need, too, as pip freeze writes them",
        came=f"{missing[0]}, which is not in it" if missing else "",
        seen=place,
    )


@check(
    "Generate requirements.txt with pip freeze (pinned versions): and install from it",
    chapter=PINNED,
    needs={"files"},
    hints=(
        "The image has to install from the file that you froze.",
        "COPY the file into the image, then RUN pip install -r on it.",
        "COPY requirements.txt .  and then  RUN pip install --no-cache-dir -r requirements.txt",
    ),
)
def installed(app: Files) -> None:
    here = build(app)
    expect(
        images.requirements_file(here, app) is not None,
        when="the image is built",
        expected="RUN pip install -r requirements.txt, of a file that is there",
        came="no such command, or no such file",
        seen=Place(here.dockerfile.path),
    )


@check(
    "Add a non-root user",
    chapter=USER,
    needs={"files"},
    hints=(
        "Who runs the program in the container?",
        "A USER instruction, after everything that needs root; the last one of the file counts.",
        "RUN useradd --create-home agent  and, near the end,  USER agent",
    ),
)
def non_root(app: Files) -> None:
    images.expect_non_root(build(app))


@check(
    "Add a non-root user: one that there is",
    chapter=USER,
    needs={"files"},
    hints=(
        "USER does not make a user.",
        "A name must stand in the image's /etc/passwd; a number need not.",
        "RUN useradd agent  before  USER agent; or simply  USER 10001:10001",
    ),
)
def user_exists(app: Files) -> None:
    here = build(app)
    if here.final.user.partition(":")[0] in ("", "0", "root"):
        raise NotChecked("there is no USER other than root")
    expect(
        images.user_is_known(here),
        when="docker run",
        expected="RUN useradd (or adduser) for that name in the same stage, or a number",
        came="unable to find user, says Docker, and does not start",
        seen=here.final.user_place,
    )


@check(
    "Include a proper .gitignore",
    chapter=IGNORE,
    needs={"files"},
    hints=(
        "Your key must not get into git.",
        "A line .env in a file called .gitignore, beside your files or at the top of the repository.",
        "printf '.env\\n' >> .gitignore",
    ),
)
def gitignore(app: Files) -> None:
    file = app.nearest(".gitignore")
    expect(
        file is not None,
        when="git add .",
        expected="a .gitignore, in the folder or above it",
        came="none",
        seen=Place(app.folder / ".gitignore"),
    )
    assert file
    expect(
        ".env" in git_ignores(file, (".env",)),
        when="git add . with a .env in the folder",
        expected=".env is ignored",
        came="git would take it, with your key",
        seen=Place(file),
    )


@check(
    "Include a proper .gitignore: which keeps out what is made anew",
    chapter=IGNORE,
    needs={"files"},
    hints=(
        "What else lies in the folder that nobody wrote?",
        "The virtual environment and Python's caches: thousands of files that differ on every machine.",
        "Lines for venv/ and __pycache__/",
    ),
)
def gitignore_clutter(app: Files) -> None:
    file = app.nearest(".gitignore")
    if file is None:
        raise NotChecked("there is no .gitignore")
    ignored = git_ignores(file, (CACHE, *VENVS))
    expect(
        CACHE in ignored and bool(ignored & set(VENVS)),
        when="git add . after python -m venv venv and one run",
        expected="__pycache__/ and the virtual environment (venv/ or .venv/) are ignored",
        came=f"git would take {CACHE if CACHE not in ignored else VENVS[0]}",
        seen=Place(file),
    )


@check(
    "Test that it runs correctly with docker run: it has a command, and what that starts",
    chapter="19.1.1",
    needs={"files"},
    hints=(
        "What does the container do when it starts, and is that file in it?",
        "CMD names the program; a COPY brings it into the WORKDIR.",
        'COPY my_agent.py .  and, at the end,  CMD ["python", "my_agent.py"]',
    ),
)
def starts(app: Files) -> None:
    images.expect_command(build(app))


@check(
    "Test that it runs correctly with docker run: and has no secret in it",
    chapter="19.1.1",
    needs={"files"},
    hints=(
        "Whoever has the image has every file and every variable in it, deleted ones too.",
        "ENV and ARG stay in the image for good, and so does a .env that is copied.",
        "docker run --env-file .env IMAGE",
    ),
)
def no_secret(app: Files) -> None:
    images.expect_no_secrets(build(app))


@check(
    "Test that it runs correctly with docker run: and copying the folder leaves .env out",
    chapter="19.1.1",
    needs={"files"},
    beyond=True,  # the chapter speaks of .gitignore only
    hints=(
        "What git ignores is copied all the same.",
        "COPY . . takes .env along unless .dockerignore names it; or name the files that the program needs.",
        "printf '.env\\n' >> .dockerignore",
    ),
)
def env_left_out(app: Files) -> None:
    images.expect_env_left_out(build(app))
