"""Watch what a submission uses as a whole, where the limits of single processes do not reach; Linux only.

Single processes are limited by the kernel (LIMITS); the sum of memory, the number of processes, the disk and the time
are looked at four times a second.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

MEMORY_MB = 1500
PROCESSES = 200
DISK_MB = 256
OUTPUT_MB = 64
LIMITS = {
    "RLIMIT_AS": 3 * 1024**3,
    "RLIMIT_NPROC": PROCESSES + 56,
    "RLIMIT_FSIZE": OUTPUT_MB * 1024**2,
    "RLIMIT_NOFILE": 1024,
    "RLIMIT_CORE": 0,
}


class Watch(threading.Thread):
    """Calls `stop` with a reason, once, when a limit is passed."""

    def __init__(self, work: Path, seconds: float, namespaces: bool, stop: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._work, self._seconds, self._namespaces, self._stop = work, seconds, namespaces, stop
        self._end = time.monotonic() + seconds

    def run(self) -> None:
        """Look until something is too much."""
        while not (reason := self.exceeded()):
            time.sleep(0.25)
        self._stop(reason)

    def exceeded(self) -> str:
        """Return what is too much, empty when nothing is."""
        if time.monotonic() > self._end:
            return f"it took more than {self._seconds:.0f} s"
        if not self._namespaces:  # without a namespace /proc shows everybody's processes, the disk is everybody's
            return ""
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if int(path.name) != os.getpid()]
        if len(pids) > PROCESSES:
            return f"it started more than {PROCESSES} processes"
        if sum(map(_anonymous_mb, pids)) > MEMORY_MB and sum(map(_own_mb, pids)) > MEMORY_MB:
            return f"it used more than {MEMORY_MB} MB of memory"
        disk = os.statvfs(self._work)
        if disk.f_bavail < disk.f_blocks * 0.02 or disk.f_favail < disk.f_files * 0.02:
            return f"it filled the {DISK_MB} MB of disk that it may use"
        if any(_size(path) >= OUTPUT_MB * 1024**2 for path in self._work.glob("tmp/check-*/output")):
            return f"it printed more than {OUTPUT_MB} MB"
        return ""


def _anonymous_mb(pid: int) -> float:
    """Memory of a process that is no file, pages shared with its parent included: cheap, and never too little."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        resident, shared = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3]
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1024**2
    return 0.0


def _own_mb(pid: int) -> float:
    """The same with shared pages divided among those who share them: exact, and slow."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("Pss_Anon:")).split()[1]) / 1024
    return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0
