"""What an image will hold and do, told from its Dockerfile and the folder that it is built from."""

from __future__ import annotations

import fnmatch
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.kit.contract import expect
from tests.kit.dockerfile import Copy, Dockerfile, Stage, pairs, read, split
from tests.kit.files import Files, Place, in_context

SECRET = re.compile(r"(?:^|_)(?:KEYS?|SECRET|TOKEN|PASSWORD|PASSWD)$", re.IGNORECASE)
KEY = re.compile(r"\bsk-[A-Za-z0-9_-]{16,}")
IN_THE_BASE = ("nobody", "www-data", "daemon", "games", "bin", "sys", "mail", "backup")  # users that Debian brings
MODULE = re.compile(r"[A-Za-z_][\w.]*(?=:[A-Za-z_]\w*(?:\(\))?$)")  # what uvicorn and gunicorn are given


@dataclass(frozen=True)
class Build:
    """A Dockerfile and the folder it is built from: the nearest one that holds all it copies."""

    dockerfile: Dockerfile
    context: Path
    ignored: str  # the text of the .dockerignore that applies

    @property
    def final(self) -> Stage:
        """The stage that becomes the image."""
        return self.dockerfile.final()

    def stage(self, name: str | None) -> Stage | None:
        """Return the stage that a COPY --from names, by alias or number; None for an image from elsewhere."""
        if name is None:
            return None
        if name.isdigit() and int(name) < len(self.dockerfile.stages):
            return self.dockerfile.stages[int(name)]
        return next((stage for stage in self.dockerfile.stages if stage.alias == name.lower()), None)

    def sent(self, path: Path) -> bool:
        """Tell whether a file of the context reaches the builder."""
        return in_context(self.ignored, path.relative_to(self.context).as_posix())

    def copied(self, copy: Copy) -> Iterator[tuple[Path, str]]:
        """Yield each local file or folder that a COPY brings, and where its content stands in the image."""
        if copy.source_stage is not None:
            return
        for source in copy.sources:
            pattern = posixpath.normpath(source.lstrip("/"))
            for real in [self.context] if pattern == "." else sorted(self.context.glob(pattern)):
                into = copy.to.endswith("/") or len(copy.sources) > 1
                to = posixpath.join(copy.to, real.name) if into and real.is_file() else copy.to
                yield real, posixpath.normpath(to)

    def holds(self, path: str, stage: Stage | None = None) -> bool:
        """Tell whether a file (or, without its suffix, a package) of the context stands at `path` in the image."""
        for copy in [copy for s in (stage or self.final).lineage() for copy in s.copies]:
            earlier = self.stage(copy.source_stage)
            if earlier:
                for source in copy.sources:
                    if rest := under(path, copy.to):
                        inner = posixpath.normpath(posixpath.join(earlier.workdir, source))
                        if any(self.holds(p, earlier) for p in (posixpath.normpath(f"{inner}/{rest}"), inner)):
                            return True
                continue
            for real, to in self.copied(copy):
                rest = under(path, to)
                found = real / rest if rest and real.is_dir() else real
                if rest and found.exists() and self.sent(found):
                    return True
        return False


def under(path: str, folder: str) -> str:
    """Return the rest of a path inside a folder, "." for the folder itself; nothing when it is not in it."""
    folder = folder.rstrip("/")
    return "." if path == folder else path.removeprefix(folder + "/") if path.startswith(folder + "/") else ""


def build_of(app: Files, number: int, wanted: Path | None = None, context: Path | None = None) -> Build:
    """Find and read the Dockerfile of exercise `number` and its context; raises CannotRun."""
    names = (f"exercise_{number}_Dockerfile", "Dockerfile")
    dockerfile = read(wanted or app.find("Dockerfile", names, r"dockerfile(?!.*\.dockerignore)"))
    local = [s for stage in dockerfile.stages for copy in stage.copies if not copy.source_stage for s in copy.sources]
    wanted_files = [
        posixpath.normpath(source.lstrip("/")) for source in local if "://" not in source and "<<" not in source
    ]
    folders = [context] if context else app.upwards()
    fits = (f for f in folders if all(w == "." or any(f.glob(w)) for w in wanted_files))
    found = next(fits, folders[0])
    own, common = dockerfile.path.with_name(dockerfile.path.name + ".dockerignore"), found / ".dockerignore"
    file = next((f for f in (own, common) if f.is_file()), None)
    return Build(dockerfile, found, file.read_text(encoding="utf-8", errors="replace") if file else "")


def expect_command(build: Build) -> None:
    """Expect a command that starts a program which is in the image."""
    final = build.final
    words = final.starts()
    started = final.cmd or final.entrypoint
    place = started.place if started else Place(build.dockerfile.path)
    when = "docker run IMAGE, without a command"
    expect(bool(words), when=when, expected="CMD or ENTRYPOINT says what to start", seen=place)
    for candidates in programs(words, final.env):
        there = [posixpath.normpath(posixpath.join(final.workdir, name)) for name in candidates]
        expect(
            any(build.holds(path) for path in there),
            when=when,
            expected=f"{there[0]} is in the image, since that is what starts",
            came=f"no COPY brings {candidates[0]} there (WORKDIR is {final.workdir})",
            seen=place,
        )


def programs(words: list[str], env: Mapping[str, str]) -> Iterator[list[str]]:
    """Yield the files of one's own that a command starts, each with the places where it may stand."""
    path_folders = [folder for folder in env.get("PYTHONPATH", "").split(":") if folder]
    for number, word in enumerate(words):
        module = ""
        if word.endswith(".py"):
            yield [word]
        elif match := MODULE.match(word):
            module = match[0]
        elif number and words[number - 1] == "-m" and word not in ("uvicorn", "gunicorn", "hypercorn", "fastapi"):
            module = word
        if module and ".py" not in module:
            folders = [w for w, before in zip(words[1:], words, strict=False) if before in ("--app-dir", "--chdir")]
            places = [posixpath.join(folder, module.replace(".", "/")) for folder in [*folders, "", *path_folders]]
            yield [f"{place}{end}" for place in places for end in (".py", "/__init__.py", "/__main__.py")]


def environments(final: Stage, build: Build) -> list[str]:
    """Return where the image has a virtual environment: made in the last stage, or copied from another one."""
    found = []
    for stage in (final, *(s for copy in final.copies if (s := build.stage(copy.source_stage)))):
        found += [place for command in stage.commands() if (place := environment_made(command, stage.workdir))]
    return found


def environment_made(command: str, workdir: str) -> str:
    """Return where a command makes a virtual environment; nothing when it makes none."""
    made = re.search(r"(?:-m venv|-m virtualenv|\buv venv|\bvirtualenv|\buv sync)(?= |$)(.*)", command)
    if not made:
        return ""
    places = [word for word in split(made[1]) if "/" in word or word.endswith("env")]
    return posixpath.normpath(posixpath.join(workdir, places[-1] if places else ".venv"))


def expect_no_secrets(build: Build) -> None:
    """Expect that nobody writes a key down, and nobody names .env among what is copied."""
    for stage in build.dockerfile.stages:
        for instruction in stage.instructions:
            given: dict[str, str] = {}
            if instruction.name == "ENV":
                given = pairs(instruction.rest)
            elif instruction.name == "ARG":
                given = {n: v for n, _, v in (word.partition("=") for word in split(instruction.rest))}
            secret = [name for name, value in given.items() if value and SECRET.search(name)]
            expect(
                not secret and not KEY.search(instruction.rest),
                when=f"{instruction.name} {secret[0] if secret else ''}".strip(),
                expected="no secret in the image, where everybody can read it: give it at the start, docker run -e",
                came=f"a value for {secret[0]}" if secret else "what looks like a key",
                seen=Place(instruction.place.file, instruction.place.line, f"{instruction.name} ..."),
            )
    _expect_no_dotenv(build, lambda pattern: posixpath.basename(pattern).startswith(".env"))


def expect_env_left_out(build: Build) -> None:
    """Expect that copying a whole folder does not take a .env along that nobody names."""
    _expect_no_dotenv(build, lambda pattern: not posixpath.basename(pattern).startswith(".env"))


def _expect_no_dotenv(build: Build, looked_at: Callable[[str], bool]) -> None:
    for copy in (copy for stage in build.dockerfile.stages for copy in stage.copies if copy.source_stage is None):
        for pattern in filter(looked_at, (posixpath.normpath(source.lstrip("/")) for source in copy.sources)):
            for env in _dotenvs(pattern, build):
                expect(
                    not in_context(build.ignored, env),
                    when=f"a file {env} with your key lies in the folder, and the image is built",
                    expected="it stays out of the image: name the files to copy, and list .env in .dockerignore",
                    came=f"{env} is copied to {posixpath.normpath(copy.to)}",
                    seen=copy.place,
                )


def _dotenvs(pattern: str, build: Build) -> Iterator[str]:
    """Yield the .env files that copying `pattern` brings: beside the Dockerfile, at the top, and any that is there."""
    beside = build.dockerfile.path.parent
    usual = (
        [".env", (beside / ".env").relative_to(build.context).as_posix()] if _in(beside, build.context) else [".env"]
    )
    there = [f"{pattern}/.env"] if (build.context / pattern / ".env").is_file() else []
    named = [pattern] if posixpath.basename(pattern) == ".env" else []
    for env in dict.fromkeys((*usual, *there, *named)):
        if pattern == "." or fnmatch.fnmatch(env, pattern) or under(env, pattern):
            yield env


def _in(path: Path, folder: Path) -> bool:
    return folder == path or folder in path.parents


def user_of(image: str) -> str:
    """Return the user that an image brings along: distroless ones say so in their tag."""
    return "nonroot" if image.partition("@")[0].endswith("nonroot") else ""


def expect_non_root(build: Build) -> None:
    """Expect a last USER that is not root."""
    user = build.final.user.partition(":")[0] or user_of(build.final.image())
    place = build.final.user_place or Place(build.dockerfile.path)
    expect(
        user not in ("", "0", "root"),
        when="the container runs",
        expected="a USER other than root, as the last one of the file",
        came=f"USER {user}" if user else "no USER, and that is root",
        seen=place,
    )


def user_is_known(build: Build) -> bool:
    """Tell whether the last USER is a number, comes with Debian, or is made in the Dockerfile."""
    brought = user_of(build.final.image())
    user = build.final.user.partition(":")[0] or brought
    if user.isdigit() or user in (*IN_THE_BASE, brought):
        return True
    made = [command for command in build.final.commands() if re.search(r"\b(?:useradd|adduser)\b", command)]
    return any(user in re.split(r"[\s'\"=]+", command) or "$" in user for command in made)


def requirements_file(build: Build, app: Files) -> Path | None:
    """Return the file that a `pip install -r` of any stage reads, as it stands in the context; None without one."""
    for stage in build.dockerfile.stages:
        for command in stage.commands():
            words = split(command)
            for option, name in itertools.pairwise(words):
                if option not in ("-r", "--requirement", "--requirements") or "install" not in words:
                    continue
                base = posixpath.basename(name)
                for copy in stage.copies:
                    for real, to in build.copied(copy):
                        if real.is_file() and (posixpath.basename(to) == base):
                            return real
                for folder in (build.context, app.folder):
                    if (folder / base).is_file():
                        return folder / base
    return None
