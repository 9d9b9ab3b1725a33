"""Run a command with plain limits: `python plain.py SPEC COMMAND...`, where there are no namespaces.

What it leaves behind is ended: on Linux every descendant, also one that has left its group and its session (this
process adopts the orphans); elsewhere its process group. On SIGTERM, and when the command ends, everything ends.
SPEC is JSON: limits by name of `resource`. Windows has none of this: there the command is only run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Run the command, end what it leaves, return its exit status."""
    limits = json.loads(argv[0])["limits"]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = subprocess.Popen(argv[1:], start_new_session=True)
    _limit(command.pid, limits)
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return command.wait()
    finally:
        _end(command)


def _limit(pid: int, limits: dict[str, int]) -> None:
    """Limit the command and all that it will start; only Linux can do so from outside, which leaves this one free."""
    with contextlib.suppress(ImportError):
        import resource

        if not hasattr(resource, "prlimit"):
            return
        for name, value in limits.items():
            kind = getattr(resource, name)
            hard = resource.prlimit(pid, kind)[1]
            if name == "RLIMIT_NPROC":  # counts all processes and threads of this user, not only these
                value += _threads_of_mine()
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.prlimit(pid, kind, (value, value))


def _threads_of_mine() -> int:
    mine = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.getuid():
                mine += len(list((folder / "task").iterdir()))
    return mine


def _end(command: subprocess.Popen[Any]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command.pid, signal.SIGKILL)
    else:
        command.kill()
    command.wait()
    while descendants := _descendants():
        for pid in descendants:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _descendants() -> list[int]:
    """Return the processes below this one; its orphans are its own children."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
