"""19.1.3: a compose file and the Dockerfile that it builds, read as they stand; a folder, or the file.

Readings accepted: short and long forms; env_file, or ${NAME} of a .env beside the file; a mount of the whole project
or of the folder with the source, read-only or not; a port published on any address. `expose` alone is not enough: it
publishes nothing. The service that is looked at is the first one that is built. Nothing is started here.
"""

from __future__ import annotations

import posixpath
import re

from tests.kit import compose, images
from tests.kit.compose import Compose
from tests.kit.contract import NotChecked, check, expect
from tests.kit.files import Files
from tests.kit.images import Build, build_of

WORTH_THINKING = "ours starts without a .env as well (required: false), as a fresh clone has none; does yours?"

NAMES = (
    "exercise_3_docker-compose.yml", "docker-compose.yml", "docker-compose.yaml", "compose.yaml", "compose.yml",
)  # fmt: skip
BUILDS = "19.1.3 bullet 1"
ENV = "19.1.3 bullet 2"
MOUNTS = "19.1.3 bullet 3"
PORT = "19.1.3 bullet 4"


def project(app: Files) -> Compose:
    return compose.read(app.find("compose file", NAMES, r"compose.*\.ya?ml$"))


def image(app: Files) -> Build:
    """Return the image that is built; raises NotChecked when there is none to read."""
    built = project(app).build()
    if built is None or built[1] is None or not built[1].is_file():
        raise NotChecked("there is no Dockerfile to look into")
    return build_of(app, 1, built[1], built[0])


def programs(app: Files) -> list[list[str]]:
    """Return where the files stand that the container starts, each with its possible places."""
    service, here = project(app), image(app)
    final = here.dockerfile.final(service.target())
    folder = str(service.service.get("working_dir", final.workdir))
    found = images.programs(service.command(final.starts()), final.env | compose.filled(service.environment()))
    return [[posixpath.normpath(posixpath.join(folder, name)) for name in candidates] for candidates in found]


@check(
    "Builds your agent image",
    chapter=BUILDS,
    needs={"files"},
    hints=(
        "Where does the service's image come from?",
        "build: names the folder, and the Dockerfile in it when it has another name.",
        "build: .   or   build: {context: ., dockerfile: exercise_1_Dockerfile}",
    ),
)
def builds(app: Files) -> None:
    service = project(app)
    built = service.build()
    when = "docker compose build"
    expect(built is not None, when=when, expected="build: in a service", came="none", seen=service.place())
    assert built
    expect(
        built[1] is None or built[1].is_file(),
        when=when,
        expected="the Dockerfile that build: names is there",
        came=f"no {built[1].name if built[1] else ''} in {built[0].name}",
        seen=service.place("build"),
    )


@check(
    "Loads environment variables from a .env file",
    chapter=ENV,
    needs={"files"},
    hints=(
        "How does your key get into the container?",
        "env_file: hands the lines of a file over to the container.",
        "env_file: .env",
    ),
)
def env_file(app: Files) -> None:
    service = project(app)
    from_file = any(re.search(r"(^|/)\.env$|\.env(\.\w+)?$", path) for path in service.env_files())
    passed_on = [name for name, value in service.environment().items() if value is None or "$" in value]
    expect(
        from_file or bool(passed_on),
        when="docker compose up with a .env beside the file",
        expected="env_file: .env (or ${NAME} under environment:, which Compose takes from .env)",
        came="nothing hands its variables over",
        seen=service.place("env_file" if service.env_files() else "environment" if service.environment() else ""),
    )


@check(
    "Loads environment variables from a .env file: and does not write secrets down itself",
    chapter=ENV,
    needs={"files"},
    hints=(
        "The compose file goes into git; what is written in it is public.",
        "No key under environment:, only names or ${NAME}.",
        "environment: [OPENAI_API_KEY]   or simply   env_file: .env",
    ),
)
def no_secret(app: Files) -> None:
    service = project(app)
    for name, value in service.environment().items():
        expect(
            not value or "$" in value or not (images.SECRET.search(name) or images.KEY.search(value)),
            when="git push",
            expected=f"{name} without its value",
            came=f"a value for {name}",
            seen=service.place("environment"),
        )


@check(
    "Mounts your source code as a volume for easy development",
    chapter=MOUNTS,
    needs={"files"},
    hints=(
        "The image holds a copy of your code: how do edits get into the container?",
        "volumes: with a folder of yours on the left, which starts with ./",
        "volumes: ['.:/app']",
    ),
)
def mounts(app: Files) -> None:
    service = project(app)
    expect(
        bool(service.mounts()),
        when="you edit a file while the container runs",
        expected="a folder of yours under volumes:, such as .:/app",
        came="volumes of the engine's own" if service.service.get("volumes") else "no volumes:",
        seen=service.place("volumes"),
    )


@check(
    "Mounts your source code as a volume for easy development: where the program runs from",
    chapter=MOUNTS,
    needs={"files"},
    hints=(
        "Is the file that the container starts one of those that are mounted?",
        "The right side of the volume is the folder that the Dockerfile copies to: its WORKDIR.",
        "WORKDIR /app in the Dockerfile, and .:/app in the compose file",
    ),
)
def mount_hits_code(app: Files) -> None:
    service = project(app)
    if not service.mounts():
        raise NotChecked("nothing is mounted")
    places = programs(app)
    if not places:
        raise NotChecked("which file of yours the container starts is nothing the checks can tell")
    live = any(
        images.under(path, mount.target) and (mount.source / images.under(path, mount.target)).exists()
        for path in places[-1]
        for mount in service.mounts()
    )
    expect(
        live,
        when="you edit a line, and docker compose restart",
        expected=f"a mount that brings your file to {places[-1][0]}, where it is started from",
        came=", ".join(f"{mount.source.name} at {mount.target}" for mount in service.mounts()),
        seen=service.place("volumes"),
    )


@check(
    "Mounts your source code as a volume for easy development: without hiding what the image installed",
    chapter=MOUNTS,
    needs={"files"},
    hints=(
        "A mount covers whatever the image has at that place.",
        "A virtual environment inside the folder that is mounted over is gone, and its packages with it.",
        "Let the image install outside of it (/opt/venv), or keep it with a volume of its own: - /app/.venv",
    ),
)
def mount_hides(app: Files) -> None:
    service, here = project(app), image(app)
    final = here.dockerfile.final(service.target())
    for place in images.environments(final, here):
        for mount in service.mounts():
            expect(
                not place.startswith(mount.target.rstrip("/") + "/") or place in service.kept(),
                when="docker compose up",
                expected=f"{place} stays visible: that is where the image has its packages",
                came=f"{mount.source.name or 'the folder'} is mounted over {mount.target}",
                seen=service.place("volumes"),
            )


@check(
    "Exposes a port for future API access",
    chapter=PORT,
    needs={"files"},
    hints=(
        "How would curl on your machine reach the container?",
        "ports: publishes a port of the container; expose: only writes it down.",
        'ports: ["127.0.0.1:8000:8000"]',
    ),
)
def port(app: Files) -> None:
    service = project(app)
    expect(
        bool(service.ports()),
        when="curl from your machine",
        expected='ports: with one of the container, such as "8000:8000"',
        came="expose:, which publishes nothing" if service.service.get("expose") else "no ports:",
        seen=service.place("expose" if service.service.get("expose") else ""),
    )


@check(
    "Exposes a port for future API access: the one that the agent listens to",
    chapter=PORT,
    needs={"files"},
    hints=(
        "HOST:CONTAINER: the number on the right is the container's.",
        "It is the one that the Dockerfile EXPOSEs, or that the command is given with --port.",
        'uvicorn ... --port 8000  goes with  ports: ["8080:8000"]',
    ),
)
def port_is_the_agents(app: Files) -> None:
    service, here = project(app), image(app)
    if not service.ports():
        raise NotChecked("no port is published")
    final = here.dockerfile.final(service.target())
    words = service.command(final.starts())
    told = re.findall(r"(?:--port|--bind|-p|-b)[= ](?:\S*:)?(\d+)", " ".join(words))
    variables = final.env | compose.filled(service.environment())
    told += [value for name, value in variables.items() if name == "PORT" and value]
    known = {int(value) for value in told if value.isdigit()} or set(final.ports)
    if not known:
        raise NotChecked("neither the Dockerfile nor the command says which port the agent listens to")
    expect(
        any(published.container is None or published.container in known for published in service.ports()),
        when="curl from your machine",
        expected=f"port {min(known)} of the container is published",
        came=f"port {service.ports()[0].container}, where nothing listens",
        seen=service.place("ports"),
    )


@check(
    "Exposes a port for future API access: on an address that others can reach",
    chapter=PORT,
    needs={"files"},
    hints=(
        "Inside a container 127.0.0.1 is the container itself.",
        "uvicorn listens there unless told otherwise, and a published port leads nowhere.",
        "uvicorn my_app:app --host 0.0.0.0",
    ),
)
def listens(app: Files) -> None:
    service, here = project(app), image(app)
    final = here.dockerfile.final(service.target())
    words = service.command(final.starts())
    tools = {posixpath.basename(word) for word in words} & {"uvicorn", "hypercorn", "gunicorn"}
    text = " ".join(words)
    given = re.findall(r"(?:--host|--bind|-b)[= ](\S+)", text)
    variables = final.env | compose.filled(service.environment())
    given += [value for name, value in variables.items() if name in ("HOST", "UVICORN_HOST") and value]
    if not tools and not given:
        raise NotChecked("the program itself chooses where it listens")
    expect(
        any(re.match(r"0\.0\.0\.0|\[?::\]?|\$", value) for value in given),
        when="curl from your machine, which arrives at the container's own address",
        expected="--host 0.0.0.0",
        came=f"it listens on {given[0] if given else '127.0.0.1, which is the default'}",
        seen=service.place("command" if "command" in service.service else "ports"),
    )
