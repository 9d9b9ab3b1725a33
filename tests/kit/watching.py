"""`WATCH=1`: check again whenever a file beside the learner's changes, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

POLL_S = 0.5
MOST_FILES = 2_000
NOT_WATCHED = frozenset((".git", "__pycache__", "node_modules", "venv"))

Stamp = frozenset[tuple[str, int, int]]


def stamp(path: Path) -> Stamp:
    """Return name, time and size of the file and of those around it, hidden folders and environments left out."""
    found: list[tuple[str, int, int]] = []
    folders = [path if path.is_dir() else path.parent]
    while folders and len(found) < MOST_FILES:
        try:
            entries = sorted(folders.pop().iterdir())
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir():
                    if entry.name not in NOT_WATCHED and not entry.name.startswith("."):
                        folders.append(entry)
                elif not entry.name.startswith(".progress") and entry.suffix not in (".pyc", ".log", ".sqlite3", ".db"):
                    status = entry.stat()
                    found.append((str(entry), status.st_mtime_ns, status.st_size))
            except OSError:
                continue  # gone between the two looks: editors save by renaming
    return frozenset(found)


def watch(path: Path, check: Callable[[], int], *, pause: Callable[[float], None] = time.sleep) -> int:
    """Check now and after every change; returns the last status when Ctrl-C ends it."""
    status = 2
    try:
        while True:
            seen = stamp(path)
            status = check()
            print("\nwatching; Ctrl-C ends it", flush=True)
            while stamp(path) == seen:
                pause(POLL_S)
            print(f"\n{'=' * 60}\n", flush=True)
    except KeyboardInterrupt:
        print()
        return status
