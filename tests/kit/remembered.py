"""What a learner has reached so far: a small file that git ignores, written by `check`, shown by `list`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from tests.chapter import ROOT
from tests.kit.contract import Verdict

FILE = ROOT / ".progress.json"
Reached = dict[str, tuple[int, int]]


def reached(file: Path | None = None) -> Reached:
    """Return met and all checks by exercise; a file that is missing or damaged has nothing to say."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        found = json.loads((file or FILE).read_text(encoding="utf-8"))
        return {str(id): (int(met), int(of)) for id, (met, of) in found.items()}
    return {}


def remember(exercise: str, verdicts: Iterable[Verdict], file: Path | None = None) -> None:
    """Note how far the last check of a learner's own solution got; without a word where nothing can be written."""
    file = file or FILE
    statuses = [verdict.status for verdict in verdicts]
    noted = reached(file) | {exercise: (statuses.count("met"), len(statuses))}
    part = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        part.write_text(json.dumps(dict(sorted(noted.items())), indent=1) + "\n", encoding="utf-8")
        part.replace(file)


def in_words(exercise: str, found: Reached) -> str:
    """Return what `list` shows beside an exercise: nothing until it has been checked once."""
    if exercise not in found:
        return ""
    met, of = found[exercise]
    return "yours: all met" if met == of else f"yours: {met} of {of} met"
