"""The one native result: `results.json` per student; every other format is written from it.

A check is "met", "missed", "not checked" (nobody can tell) or "could not run" (the submission did not get that far).
An exercise is "graded", "could not run", "ambiguous", "not handed in" (of those asked for) or "pending". A submission
is "graded", "empty", "refused" or of "unknown layout". Only "missed" means wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

from tests.chapter import ROOT, find
from tests.kit.contract import contract
from tests.kit.grading.layout import Layout
from tests.kit.grading.submissions import Submission

SCHEMA = "chapter-19/results/v2"
COULD_NOT_RUN = "could not run"
Result = dict[str, Any]


def blank(submission: Submission, layout: Layout, isolation: str, wanted: Collection[str] = ()) -> Result:
    """Return the result of a submission before anything of it was run; `wanted` are the ids asked for, () is any."""
    exercises = [_exercise(id, target) for id, target in layout.targets.items()]
    exercises += [
        _exercise(id, ", ".join(places), "ambiguous", f"which one? Say so in submission.toml: {', '.join(places)}")
        for id, places in layout.ambiguous.items()
    ]
    exercises += [_exercise(id, "", COULD_NOT_RUN, why) for id, why in layout.broken.items()]
    status, reason = "graded", ""
    if submission.refused:
        status, reason = "refused", submission.refused
    elif not exercises:
        names = [p.relative_to(submission.folder).as_posix() for p in submission.folder.rglob("*") if p.is_file()]
        status = "unknown layout" if names else "empty"
        there = f"; there: {', '.join(sorted(names)[:10])}" if names else ""
        reason = f"no file has a name of the chapter, and there is no submission.toml{there}" if names else "no files"
    elif wanted:
        lacking = set(wanted) - {e["exercise"] for e in exercises}
        exercises = [e for e in exercises if e["exercise"] in wanted]
        exercises += [_exercise(id, "", "not handed in", "nothing was handed in for it") for id in lacking]
    return {
        "schema": SCHEMA,
        "student": submission.student,
        "submission": submission.handed_in.name.encode("utf-8", "replace").decode(),
        "hash": submission.hash,
        "isolation": isolation,
        "status": status,
        "reason": reason,
        "notes": [*submission.notes, *layout.notes],
        "exercises": sorted(exercises, key=lambda e: str(e["exercise"])),
    }


def _exercise(id: str, target: str, status: str = "pending", reason: str = "") -> Result:
    facts = {"exercise": id, "heading": find(id).heading, "target": target, "contract": fingerprint(id)}
    checks = [
        {"id": check.id, "title": check.title, "points": int(not check.beyond), "status": "pending"}
        for check in contract(id)
    ]
    exercise = {**facts, "status": status, "reason": reason, "notes": [], "found": [], "checks": checks}
    if status != "pending":
        finish(exercise, reason)
    return exercise


def finish(exercise: Result, stopped: str = "") -> None:
    """Say of every check that has no verdict that it could not run, and of the exercise what became of it."""
    for check in exercise["checks"]:
        if check["status"] == "pending":
            check.update(status=COULD_NOT_RUN, reason=stopped)
    if exercise["status"] == "pending":
        exercise["status"] = COULD_NOT_RUN if stopped else "graded"
        exercise["reason"] = stopped


def keep(old: Result | None, new: Result) -> int:
    """Take over the exercises that were graded before, if neither they nor their contract changed; returns how many."""
    kept = 0
    if not old or old.get("schema") != SCHEMA or any(old.get(k) != new[k] for k in ("hash", "isolation")):
        return 0
    known = {e["exercise"]: e for e in old["exercises"]}
    for number, exercise in enumerate(new["exercises"]):
        before = known.get(exercise["exercise"])
        unchanged = before and all(before[k] == exercise[k] for k in ("target", "contract"))
        if before and unchanged and exercise["status"] == "pending" != before["status"]:
            new["exercises"][number] = before
            kept += 1
    return kept


def load(path: Path) -> Result | None:
    """Read a result; None when there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        loaded = json.loads(path.read_text(encoding="utf-8"))
        return loaded if isinstance(loaded, dict) else None
    return None


def write(path: Path, text: str) -> None:
    """Replace a file as a whole: whoever reads it sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="")
    part.replace(path)


def counts(exercise: Result) -> tuple[int, int]:
    """Return the points of the checks that are met, and of all: one each, none for what the chapter does not ask."""
    met = sum(check["points"] for check in exercise["checks"] if check["status"] == "met")
    return met, sum(check["points"] for check in exercise["checks"])


@cache
def fingerprint(exercise: str) -> str:
    """Hash everything that a verdict on this exercise depends on, except the submission."""
    files = {ROOT / "requirements.txt", *(ROOT / "shared").glob("*.py")}
    files |= {f for f in (ROOT / "tests" / "kit").glob("*.py") if f.name not in ("mutants.py", "exam.py", "readme.py")}
    files |= {Path(__file__).with_name(name) for name in ("worker.py", "watch.py", "sandbox.py", "words.py")}
    pending = [ROOT / "tests" / "contracts" / f"ex_{exercise.replace('.', '_')}.py"]
    while pending:
        files.add(file := pending.pop())
        for name in re.findall(r"tests\.contracts\.(\w+)", file.read_text(encoding="utf-8")):
            if (other := file.with_name(f"{name}.py")) not in files and other.exists():
                pending.append(other)
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(files):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
