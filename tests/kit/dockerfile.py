"""A Dockerfile as data: its stages, and what holds at the end of each (base, user, folder, variables, command).

Reads what BuildKit reads: continued lines, comments between them, here-documents, flags, JSON and shell forms,
variables with defaults. It does not run anything, so a command inside RUN is known by its words.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.kit.files import Place
from tests.kit.target import CannotRun

NAMES = re.compile(
    "ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|FROM|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER"
    "|VOLUME|WORKDIR"
)


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, its flags (repeated ones a line each), the rest as written, and where it stands."""

    name: str
    flags: dict[str, str]
    rest: str
    place: Place

    def words(self) -> list[str] | None:
        """Return the JSON form's words; None for the shell form."""
        try:
            words = json.loads(self.rest)
        except ValueError:
            return None
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


@dataclass(frozen=True)
class Copy:
    """What COPY or ADD brings: `sources` as written, where to (absolute; ending in `/`: a folder), from which stage."""

    sources: tuple[str, ...]
    to: str
    source_stage: str | None
    place: Place


@dataclass
class Stage:
    """One FROM and what follows it. `base` has its variables filled in; what an earlier stage set is inherited."""

    base: str
    alias: str
    place: Place
    parent: Stage | None = None
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    user_place: Place | None = None
    copies: list[Copy] = field(default_factory=list)
    runs: list[Instruction] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    entrypoint: Instruction | None = None
    cmd: Instruction | None = None
    healthcheck: Instruction | None = None
    instructions: list[Instruction] = field(default_factory=list)

    def image(self) -> str:
        """Return the image that this stage starts from, through stages built on stages."""
        return self.parent.image() if self.parent else self.base

    def lineage(self) -> list[Stage]:
        """Return this stage and those that it is built on, the first one first."""
        return [*(self.parent.lineage() if self.parent else []), self]

    def commands(self) -> list[str]:
        """Return every shell command of the lineage's RUNs, one string each, `&&` and `;` taken apart."""
        texts = []
        for stage in self.lineage():
            for run in stage.runs:
                words = run.words()
                texts.append(shlex.join(words) if words else run.rest)
        return [part.strip() for text in texts for part in re.split(r"&&|\|\||[;\n]", text) if part.strip()]

    def starts(self) -> list[str]:
        """Return the words of ENTRYPOINT and CMD together, as the container would run them; a shell's are split."""
        found: list[str] = []
        for instruction in (self.entrypoint, self.cmd):
            if instruction:
                words = instruction.words()
                found += split(instruction.rest) if words is None else words
        return [piece for word in found for piece in (split(word) if " " in word else [word])]


@dataclass(frozen=True)
class Dockerfile:
    """All stages in order; the last one is the image, unless another is asked for by name."""

    path: Path
    stages: tuple[Stage, ...]

    def final(self, target: str | None = None) -> Stage:
        """Return the stage that is built."""
        return next((stage for stage in self.stages if target and stage.alias == target), self.stages[-1])


def split(text: str) -> list[str]:
    """Split words as a shell would; a text that no shell would read is split at blanks."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def read(path: Path) -> Dockerfile:
    """Read a Dockerfile; raises CannotRun where Docker would refuse it."""
    stages: list[Stage] = []
    global_args: dict[str, str] = {}
    for instruction in instructions(path):
        if instruction.name == "FROM":
            words = fill(instruction.rest, global_args).split()
            if not words or not words[0]:
                raise CannotRun(f"{instruction.place.sent()}\nFROM needs an image")
            alias = words[2].lower() if len(words) == 3 and words[1].upper() == "AS" else ""
            parent = next((stage for stage in stages if stage.alias and stage.alias == words[0].lower()), None)
            stage = Stage(words[0], alias, instruction.place, parent)
            if parent:
                stage.env, stage.args = dict(parent.env), {}
                stage.workdir, stage.user, stage.user_place = parent.workdir, parent.user, parent.user_place
                stage.entrypoint, stage.cmd, stage.healthcheck = parent.entrypoint, parent.cmd, parent.healthcheck
                stage.ports = list(parent.ports)
            stages.append(stage)
        elif not stages:
            if instruction.name != "ARG":
                raise CannotRun(f"{instruction.place.sent()}\nOnly ARG may stand before the first FROM")
            name, _, value = instruction.rest.partition("=")
            global_args[name.strip()] = fill(value.strip().strip("\"'"), global_args)
        else:
            apply(stages[-1], instruction, global_args)
    if not stages:
        raise CannotRun(f"{path.name} has no FROM: it is not a Dockerfile")
    return Dockerfile(path, tuple(stages))


def apply(stage: Stage, instruction: Instruction, global_args: dict[str, str]) -> None:
    """Let one instruction change the stage."""
    stage.instructions.append(instruction)
    known = {**stage.args, **stage.env}
    rest = fill(instruction.rest, known)
    match instruction.name:
        case "ARG":
            for word in split(instruction.rest):
                name, given, value = word.partition("=")
                stage.args[name] = fill(value, known) if given else global_args.get(name, "")
        case "ENV":
            stage.env.update(pairs(rest))
        case "WORKDIR":
            stage.workdir = posixpath.normpath(posixpath.join(stage.workdir, rest.strip("\"'")))
        case "USER":
            stage.user, stage.user_place = rest.strip(), instruction.place
        case "COPY" | "ADD":
            words = instruction.words() or split(rest)
            to = posixpath.join(stage.workdir, words[-1])
            to = to if words[-1] not in (".", "./") else stage.workdir.rstrip("/") + "/"
            stage.copies.append(Copy(tuple(words[:-1]), to, instruction.flags.get("from"), instruction.place))
        case "RUN":
            stage.runs.append(replace(instruction, rest=rest))
        case "EXPOSE":
            stage.ports += [int(port) for port in re.findall(r"\b(\d+)(?:/tcp)?\b", rest)]
        case "ENTRYPOINT":
            stage.entrypoint, stage.cmd = instruction, None
        case "CMD":
            stage.cmd = instruction
        case "HEALTHCHECK":
            stage.healthcheck = instruction


def instructions(path: Path) -> Iterator[Instruction]:
    """Yield the instructions of a file; raises CannotRun at a word that is none."""
    lines = iter(enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1))
    for number, line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        while text.endswith("\\"):
            text = text[:-1].rstrip() + " "
            for _, more in lines:
                if more.strip() and not more.lstrip().startswith("#"):
                    text += more.strip()
                    break
            else:
                break
        name, _, rest = text.strip().partition(" ")
        name, rest = name.upper(), rest.strip()
        place = Place(path, number, text.strip())
        if not NAMES.fullmatch(name):
            raise CannotRun(f"{place.sent()}\n{name} is no instruction of a Dockerfile")
        if name in ("RUN", "COPY", "ADD") and (document := re.search(r"<<-?([\"']?)(\w+)\1", rest)):
            body = []
            for _, more in lines:
                if more.strip() == document[2]:
                    break
                body.append(more)
            if name == "RUN":
                rest = rest.replace(document[0], "").strip() + "\n" + "\n".join(body)
        flags: dict[str, str] = {}
        while match := re.match(r"--([\w-]+)(?:=(\S+))?\s+", rest):
            if name not in ("RUN", "COPY", "ADD", "FROM", "HEALTHCHECK"):
                break
            flags[match[1]] = "\n".join(filter(None, (flags.get(match[1]), match[2])))
            rest = rest[match.end() :]
        yield Instruction(name, flags, rest, place)


def pairs(rest: str) -> dict[str, str]:
    """Read the variables of an ENV, in both of its forms."""
    words = split(rest)
    if words and "=" not in words[0]:
        name, _, value = rest.partition(" ")
        return {name: value.strip()}
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def fill(text: str, variables: dict[str, str]) -> str:
    """Fill in `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+other}`; an unknown one is left as it stands."""

    def value(match: re.Match[str]) -> str:
        name, how, other = match[1] or match[2], match[3], match[4] or ""
        known = variables.get(name)
        if how == ":-":
            return known or other
        if how == ":+":
            return other if known else ""
        return match[0] if known is None else known

    return re.sub(r"(?<!\\)\$(?:(\w+)|\{(\w+)(?:(:[-+])([^}]*))?\})", value, text)
