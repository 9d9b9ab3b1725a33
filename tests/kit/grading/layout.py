"""Which file of a submission answers which exercise: what `submission.toml` says, else the chapter's file names.

    [exercises]
    "19.2.3" = "app/main.py:create_app"    # a file, file.py:name, or a folder, seen from the folder of this file
    "19.1.1" = "docker"

Nothing is guessed: two files of the same name are ambiguous, and a submission without any known name is listed.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from tests.chapter import EXERCISES, Exercise, NoSuchExercise, find
from tests.kit.grading.submissions import files_of
from tests.kit.grading.words import clean

MAP = "submission.toml"


@dataclass
class Layout:
    """Targets by exercise (relative to the copy), the exercises that have several, and what was noticed."""

    targets: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_layout(folder: Path) -> Layout:
    """Find the exercises in a submission's copy."""
    layout = Layout()
    files = [file.relative_to(folder) for file in files_of(folder)]
    maps = [file for file in files if file.name.lower() == MAP]
    if len(maps) > 1:
        layout.notes.append(clean(f"several {MAP}, none was read: {', '.join(m.as_posix() for m in maps)}"))
    elif maps:
        _read_map(folder, maps[0], layout)
    for exercise in EXERCISES:
        if exercise.id not in layout.targets and exercise.id not in layout.broken:
            _look_for(exercise, files, layout)
    return layout


def _look_for(exercise: Exercise, files: list[Path], layout: Layout) -> None:
    for name in exercise.files:  # the file that a reader opens first counts first
        found = [file.as_posix() for file in files if file.name.lower() == name.lower()]
        if len(found) > 1:
            layout.ambiguous[exercise.id] = found
        elif found:
            layout.targets[exercise.id] = found[0]
        if found:
            return


def _read_map(folder: Path, file: Path, layout: Layout) -> None:
    try:
        given = tomllib.loads((folder / file).read_text(encoding="utf-8"))["exercises"]
        entries = dict(given.items())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        why = "no table [exercises]" if isinstance(error, (KeyError, AttributeError)) else str(error)
        layout.notes.append(clean(f"{file.as_posix()} cannot be read: {why}"))
        return
    for name, place in entries.items():
        try:
            exercise = find(name).id
        except NoSuchExercise:
            layout.notes.append(clean(f"{file.as_posix()} names no exercise of the chapter: {name}"))
            continue
        path, _, variable = str(place).partition(":") if re.fullmatch(r".*\.py:\w+", str(place)) else (place, "", "")
        if not isinstance(place, str) or not _inside(folder, folder / file.parent / str(path)):
            layout.broken[exercise] = clean(f"{file.as_posix()} says {place!r}, and there is no such file or folder")
            continue
        target = (folder / file.parent / path).resolve().relative_to(folder.resolve()).as_posix()
        layout.targets[exercise] = target + (f":{variable}" if variable else "")


def _inside(folder: Path, path: Path) -> bool:
    return path.exists() and path.resolve().is_relative_to(folder.resolve())
