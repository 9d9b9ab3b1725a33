"""How submissions are kept in: namespaces where the kernel gives them, plain limits elsewhere; it says which."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chapter import FOLDER, ROOT
from tests.kit.grading.watch import DISK_MB, LIMITS
from tests.kit.target import KEPT

HERE = Path(__file__).parent
KIT = (HERE.parent / "child.py", HERE.parent / "clock.py")  # all that a program sees of the checks
GIVEN = (ROOT / "shared", FOLDER / "find_shared.py")  # what the book taught before: a submission may build on it
NAMESPACES = (
    "Linux namespaces (own processes, own files, no network but loopback) and limits of memory, processes, disk, output"
)
PLAIN = "plain limits ({why}): connections are refused inside Python only, and files are protected by their owner only"


@dataclass(frozen=True)
class Isolation:
    """The strongest containment that works here."""

    namespaces: bool
    words: str

    @contextmanager
    def work(self, stage: Path) -> Iterator[Path]:
        """Give a folder for one run; in namespaces the files in it never reach the disk."""
        with tempfile.TemporaryDirectory(prefix="work-", dir=stage, ignore_cleanup_errors=True) as folder:
            yield Path(folder).resolve()

    def command(self, job: dict[str, Any], work: Path) -> list[str]:
        """Return the command that does a worker's job."""
        given = json.dumps(job | {"work": str(work), "namespaces": self.namespaces, "sandbox": _inner(work)})
        worker = [sys.executable, "-m", "tests.kit.grading.worker", given]
        if self.namespaces:
            return [sys.executable, str(HERE / "sandbox.py"), json.dumps(_outer(work, Path(job["folder"]))), *worker]
        return [sys.executable, str(HERE / "plain.py"), json.dumps({"limits": LIMITS}), *worker]


def environment() -> dict[str, str]:
    """Return what a worker inherits: nothing of the instructor's but the paths and the language."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"}


def _outer(work: Path, submission: Path) -> dict[str, Any]:
    show = [sys.base_prefix, sys.prefix, str(ROOT), str(submission)]
    return {"work": str(work), "show": show, "tmp_mb": DISK_MB, "network": False, "env": {}, "limits": {}}


def _inner(work: Path) -> dict[str, Any]:
    show = [sys.base_prefix, sys.prefix, *map(str, KIT), *map(str, GIVEN)]
    given = {"PYTHONPATH": str(FOLDER)}
    return {"work": str(work), "show": show, "tmp_mb": 0, "network": True, "env": given, "limits": LIMITS}


@functools.cache
def best() -> Isolation:
    """Try the namespaces, both layers; plain limits where they do not work, with the reason."""
    if sys.platform != "linux":
        return Isolation(False, PLAIN.format(why=f"no namespaces on {sys.platform}"))
    with tempfile.TemporaryDirectory(prefix="grade-") as folder:
        work, sandbox = Path(folder).resolve(), str(HERE / "sandbox.py")
        inner = [sys.executable, sandbox, json.dumps(_inner(work)), sys.executable, "-c", "import fastapi"]
        command = [sys.executable, sandbox, json.dumps(_outer(work, HERE)), *inner]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment(), check=False)
    if run.returncode:
        why = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Isolation(False, PLAIN.format(why=why.removeprefix("sandbox: ")))
    return Isolation(True, NAMESPACES)
