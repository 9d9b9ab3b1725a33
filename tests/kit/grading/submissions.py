"""The submissions of a class: a folder or a zip each, copied to a place of our own; what is dangerous is refused.

A link in a folder is left out and named (it may point anywhere); an archive that reaches outside itself, links, or
grows beyond the limits is refused as a whole. What people never mean to hand in (environments, caches) is left out.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.kit.grading.words import clean

RESULTS = "_results"
MAX_FILES, MAX_MB, MAX_RATIO = 5_000, 100, 200
NEVER_MEANT = re.compile(r"__pycache__|__MACOSX|node_modules|site-packages|\.?venv.*|\.git|\.(mypy|ruff|pytest)_cache")


class Refused(Exception):
    """A submission that is not even unpacked, and why."""


@dataclass
class Submission:
    """One student's work: whose, what was handed in, the copy's folder, its hash, what was noticed; `key` is unique."""

    student: str
    key: str
    handed_in: Path
    folder: Path
    hash: str = ""
    refused: str = ""
    notes: list[str] = field(default_factory=list)


def take_in(class_folder: Path, stage: Path) -> tuple[list[Submission], list[str]]:
    """Copy every submission below `stage`; returns them, and the names of what is no submission."""
    found: list[Submission] = []
    others: list[str] = []
    keys: set[str] = set()
    for path in sorted(class_folder.iterdir(), key=lambda p: p.name):
        if path.name in (RESULTS, ".DS_Store", ".git", ".gitignore"):
            continue
        is_zip = path.is_file() and not path.is_symlink() and path.suffix.lower() == ".zip"
        if path.name.startswith(".") or (not is_zip and (path.is_symlink() or not path.is_dir())):
            others.append(clean(path.name))
            continue
        student = path.stem if is_zip else path.name
        key = _key(path.stem if is_zip else path.name, keys)
        submission = Submission(clean(student).replace("\n", " "), key, path, stage / str(len(found)))
        submission.folder.mkdir(parents=True)
        try:
            (_unzip if is_zip else _copy)(path, submission)
            _unpack_the_only(submission)
        except Refused as refused:
            submission.refused = str(refused)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            submission.refused = clean(f"it cannot be read: {type(error).__name__}: {error}")
        submission.hash = _hash(submission)
        found.append(submission)
    return found, others


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files of a copy in a fixed order."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def _key(name: str, taken: set[str]) -> str:
    """Return a folder name for the results: safe everywhere, and different even where case does not count."""
    base = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._") or "student"
    key, number = base[:60], 2
    while key.casefold() in taken:
        key, number = f"{base[:60]}~{number}", number + 1
    taken.add(key.casefold())
    return key


def _copy(folder: Path, into: Submission) -> None:
    budget = _Budget()
    pending = [folder]
    while pending:
        for path in sorted(pending.pop().iterdir()):
            inside = path.relative_to(folder)
            if path.is_symlink():
                if not NEVER_MEANT.fullmatch(path.name):
                    into.notes.append(clean(f"left out: {inside.as_posix()} is a link"))
            elif path.is_dir():
                if not NEVER_MEANT.fullmatch(path.name):
                    (into.folder / inside).mkdir(parents=True, exist_ok=True)
                    pending.append(path)
            elif path.is_file():
                budget.take(path.stat().st_size)
                shutil.copyfile(path, into.folder / inside)
            else:
                into.notes.append(clean(f"left out: {inside.as_posix()} is neither a file nor a folder"))


def _unzip(archive: Path, into: Submission) -> None:
    with zipfile.ZipFile(archive) as packed:
        wanted = []
        budget = _Budget()
        for entry in packed.infolist():
            name = entry.filename.replace("\\", "/")
            inside = PurePosixPath(name)
            if inside.is_absolute() or ".." in inside.parts or re.match(r"[A-Za-z]:", name) or "\0" in entry.filename:
                raise Refused(clean(f"the archive reaches outside itself: {name}"))
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Refused(clean(f"the archive holds a link: {name}"))
            if entry.flag_bits & 1:
                raise Refused("the archive asks for a password")
            if entry.file_size > 1_000_000 and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
                raise Refused(clean(f"the archive is a bomb: {name} grows to {entry.file_size // 1024**2} MB"))
            budget.take(entry.file_size)
            if not entry.is_dir() and not any(NEVER_MEANT.fullmatch(part) for part in inside.parts):
                wanted.append((entry, inside))
        budget = _Budget()
        for entry, inside in wanted:
            target = into.folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise Refused(clean(f"the archive holds {inside} twice"))
            with packed.open(entry) as source, target.open("wb") as copy:
                while chunk := source.read(1 << 16):  # what the directory promises need not be what comes
                    budget.take(len(chunk), files=0)
                    copy.write(chunk)


def _unpack_the_only(into: Submission) -> None:
    """Unpack the archive in a folder that holds nothing else, as course systems hand it out."""
    held = list(files_of(into.folder))
    if len(held) == 1 and held[0].suffix.lower() == ".zip":
        packed = held[0].rename(into.folder.with_name(f"{into.folder.name}.zip"))
        into.notes.append(clean(f"unpacked: {held[0].name}"))
        _unzip(packed, into)


class _Budget:
    def __init__(self) -> None:
        self._files, self._bytes = 0, 0

    def take(self, size: int, files: int = 1) -> None:
        self._files, self._bytes = self._files + files, self._bytes + size
        if self._files > MAX_FILES:
            raise Refused(f"it holds more than {MAX_FILES} files")
        if self._bytes > MAX_MB * 1024**2:
            raise Refused(f"it holds more than {MAX_MB} MB")


def _hash(submission: Submission) -> str:
    digest = hashlib.sha256(repr((submission.refused, sorted(submission.notes))).encode("utf-8", "backslashreplace"))
    if not submission.refused:
        for file in files_of(submission.folder):
            name = file.relative_to(submission.folder).as_posix().encode("utf-8", "surrogateescape")
            digest.update(name + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
