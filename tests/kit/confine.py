"""Where a learner's programs run: like any other program, or, while a class is graded, in a sandbox.

A grading worker sets one variable of its own environment; learners' programs never see it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VARIABLE = "CHECK_KIT_CONFINEMENT"


def confinement() -> dict[str, Any]:
    """Return how programs are confined: `prefix` of every command, `notes` file, `own` folders; empty when not."""
    return dict(json.loads(os.environ.get(VARIABLE, "{}")))


def confined(command: Sequence[str]) -> list[str]:
    """Return the command as it is to be started."""
    return [*confinement().get("prefix", []), *command]


def pid_seen_from_here(sandbox: int, inner: int) -> int:
    """Translate a process id that a sandbox's first process reports of one of its children."""
    if not confinement().get("namespaces"):
        return inner
    (first,) = _children(sandbox)
    for pid in _children(first):
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        seen = next(line for line in status.splitlines() if line.startswith("NSpid:"))
        if int(seen.split()[-1]) == inner:
            return pid
    raise ProcessLookupError(inner)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
