"""A target that is read and not run: a folder, or one file in it, and the files around it that belong to it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.kit.contract import Form, NotChecked
from tests.kit.target import CannotRun, Target


@dataclass(frozen=True)
class Place:
    """A line of a file, for a report; `line` 0 is the file as a whole."""

    file: Path
    line: int = 0
    text: str = ""

    def sent(self) -> str:
        """Return where it is and what stands there."""
        where = self.file.name + (f", line {self.line}" if self.line else "")
        return f"{where}: {self.text}"[:200] if self.text else where

    def came(self) -> str:
        """Return what stands there."""
        return self.text or "nothing of the kind"

    def curl(self, base: str) -> str:
        """A file is not replayed."""
        return ""


class Still:
    """What does not run between two checks, and so remembers none: a Subject."""

    used, ended, base = False, False, ""
    kind: str
    capabilities: frozenset[str]
    notes: list[str] = []  # noqa: RUF012  (nothing is ever noted)

    def close(self) -> None:
        """Nothing was started."""


class Files(Still):
    """The folder that a learner names, or the file, and its folder around it."""

    kind = "a folder"
    capabilities = frozenset((Form.FILES,))

    def __init__(self, target: Target) -> None:
        assert target.file
        self.path = target.file
        self.folder = self.path if self.path.is_dir() else self.path.parent

    def find(self, what: str, names: tuple[str, ...], like: str) -> Path:
        """Return the named file itself, else the first of `names` in the folder, else the only one that is `like`.

        Raises CannotRun where none is found or several are: then nothing can be judged.
        """
        if self.path.is_file() and re.search(like, self.path.name, re.IGNORECASE):
            return self.path
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        found = sorted(p for p in self.folder.iterdir() if p.is_file() and re.search(like, p.name, re.IGNORECASE))
        if len(found) == 1:
            return found[0]
        there = ", ".join(path.name for path in found or sorted(self.folder.iterdir())[:8])
        if found:
            raise CannotRun(
                f"which is your {what}? In {self.folder.name} there are {there}.\nName it: MINE=.../{found[0].name}"
            )
        raise CannotRun(f"no {what} in {self.folder.name} (there: {there}).\nMINE takes the folder that holds it")

    def upwards(self) -> list[Path]:
        """Return the folder and those above it, up to the one that git tracks from, or three of them."""
        found = []
        for folder in (self.folder, *self.folder.parents)[:4]:
            found.append(folder)
            if (folder / ".git").exists():
                break
        return found

    def nearest(self, name: str) -> Path | None:
        """Return the file of that name in the folder or in the nearest one above."""
        return next((folder / name for folder in self.upwards() if (folder / name).is_file()), None)


def git_ignores(gitignore: Path, paths: tuple[str, ...]) -> set[str]:
    """Ask git itself which of `paths` a .gitignore ignores, in an empty repository; raises NotChecked without git."""
    if not shutil.which("git"):
        raise NotChecked("git is not installed, and nobody else reads a .gitignore as git does")
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        subprocess.run(["git", "init", "-q", folder], check=True, capture_output=True)
        shutil.copy(gitignore, Path(folder) / ".gitignore")
        command = ["git", "-c", "core.excludesFile=", "check-ignore", "--no-index", *paths]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return set(run.stdout.splitlines())


def in_context(dockerignore: str, path: str) -> bool:
    """Tell whether a file is sent to the builder; the last pattern that matches it or a folder above it decides.

    As Docker reads a .dockerignore: patterns start at the context's root, `**` is any depth, `!` takes back.
    """
    kept = True
    for line in dockerignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        takes_back = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip().strip("/").removeprefix("./")
        if re.fullmatch(f"(?:{_as_regex(pattern)})(?:/.*)?", path):
            kept = takes_back
    return kept


def _as_regex(pattern: str) -> str:
    out = ""
    for part in re.findall(r"\*\*/?|\*|\?|\[[^\]]*\]|[^*?\[]+|\[", pattern):
        if part == "**/":
            out += "(?:.*/)?"
        elif part == "**":
            out += ".*"
        elif part == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part.startswith("[") and len(part) > 1:
            out += part
        else:
            out += re.escape(part)
    return out
