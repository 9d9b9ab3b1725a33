"""A compose file as data: the service that is being worked on, and the lines where its parts stand."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.kit.dockerfile import fill, split
from tests.kit.files import Place
from tests.kit.target import CannotRun


@dataclass(frozen=True)
class Mount:
    """A folder of this machine in the container."""

    source: Path
    target: str


@dataclass(frozen=True)
class Port:
    """A port of the container (None: any that the author did not say), and where it is published."""

    container: int | None
    host: str


@dataclass(frozen=True)
class Compose:
    """A compose file and one of its services: as `written`, and with the defaults of `${NAME:-default}` filled in."""

    path: Path
    service: dict[str, Any]
    written: dict[str, Any]
    lines: dict[str, int]

    def place(self, key: str = "") -> Place:
        """Return where a part of the service stands."""
        line = self.lines.get(key, self.lines.get("", 0))
        text = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        return Place(self.path, line, text[line - 1].strip() if line else "")

    def build(self) -> tuple[Path, Path | None] | None:
        """Return the folder and the Dockerfile that the image is built from (None: inline); None without a build."""
        build = self.service.get("build")
        if build is None:
            return None
        build = {"context": build} if isinstance(build, str) else dict(build)
        context = (self.path.parent / str(build.get("context", "."))).resolve()
        if "dockerfile_inline" in build:
            return context, None
        return context, (context / str(build.get("dockerfile", "Dockerfile"))).resolve()

    def target(self) -> str | None:
        """Return the stage that is built, when the file says one."""
        build = self.service.get("build")
        return str(build["target"]) if isinstance(build, dict) and "target" in build else None

    def env_files(self) -> list[str]:
        """Return the paths under env_file."""
        return [str(e.get("path", "")) if isinstance(e, dict) else str(e) for e in listed(self.service.get("env_file"))]

    def environment(self) -> dict[str, str | None]:
        """Return the variables as they are written; None where only a name stands."""
        given = self.written.get("environment") or {}
        if isinstance(given, dict):
            return {str(name): None if value is None else str(value) for name, value in given.items()}
        pairs = (str(line).partition("=") for line in given)
        return {name: value if sign else None for name, sign, value in pairs}

    def mounts(self) -> list[Mount]:
        """Return the folders of this machine that are mounted; named and anonymous volumes are none."""
        found = []
        for volume in listed(self.service.get("volumes")):
            if isinstance(volume, dict):
                source, target = str(volume.get("source", "")), str(volume.get("target", ""))
                bound = volume.get("type") == "bind"
            else:
                source, target, *_ = [*str(volume).split(":"), ""]
                bound = bool(target) and bool(re.match(r"[./~$]", source))
            if bound:
                source = re.sub(r"^\$\{?PWD\}?", ".", source)
                found.append(Mount((self.path.parent / source).resolve(), posixpath.normpath(target)))
        return found

    def kept(self) -> set[str]:
        """Return the places in the container that a volume of their own keeps as the image has them."""
        found = set()
        for volume in listed(self.service.get("volumes")):
            if isinstance(volume, dict):
                found |= {str(volume.get("target"))} if volume.get("type") == "volume" else set()
            else:
                first, _, rest = str(volume).partition(":")
                found |= {first} if not rest else {rest.partition(":")[0]} if not re.match(r"[./~$]", first) else set()
        return {posixpath.normpath(place) for place in found}

    def ports(self) -> list[Port]:
        """Return what is published; a range counts by its first port."""
        found = []
        for port in listed(self.service.get("ports")):
            if isinstance(port, dict):
                found.append(Port(number(port.get("target")), str(port.get("host_ip", ""))))
            else:
                text = str(port).partition("/")[0]
                host, _, container = text.rpartition(":")
                found.append(Port(number(container), host))
        return found

    def command(self, image: list[str]) -> list[str]:
        """Return what the container starts: the file's own entrypoint and command, else the image's."""
        own = [word for key in ("entrypoint", "command") for word in words(self.service.get(key))]
        return own or image


def read(path: Path) -> Compose:
    """Read a compose file; raises CannotRun where Compose would refuse it."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        data, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        raise CannotRun(f"{path.name} is not valid YAML{at}: {getattr(error, 'problem', None) or error}") from None
    services = data.get("services") if isinstance(data, dict) else None
    if not isinstance(services, dict) or not any(isinstance(s, dict) for s in services.values()):
        raise CannotRun(f"{path.name} has no services")
    named = {str(name): service for name, service in services.items() if isinstance(service, dict)}
    name = next((n for n, service in named.items() if "build" in service), next(iter(named)))
    return Compose(path, filled(named[name]), named[name], dict(lines_of(tree, name)))


def lines_of(tree: Any, name: str) -> Iterator[tuple[str, int]]:
    """Yield the line of a service ("") and of each of its keys."""
    for key, value in tree.value:
        if key.value != "services":
            continue
        for service, parts in value.value:
            if service.value == name:
                yield "", service.start_mark.line + 1
                for part, _ in parts.value:
                    yield part.value, part.start_mark.line + 1


def filled(value: Any) -> Any:
    """Fill in the defaults of `${NAME:-default}` and `${NAME-default}`; other variables stay as they are written."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    return fill(re.sub(r"\$\{(\w+)-", r"${\1:-", value), {}) if isinstance(value, str) else value


def listed(value: Any) -> list[Any]:
    """Return a list for what may be one thing, several, or none."""
    return value if isinstance(value, list) else [] if value is None else [value]


def words(value: Any) -> list[str]:
    """Return the words of a command, a string or a list."""
    return split(value) if isinstance(value, str) else [str(word) for word in listed(value)]


def number(value: Any) -> int | None:
    """Return the first number of a port; None for a variable."""
    match = re.match(r"\d+", str(value))
    return int(match[0]) if match else None
