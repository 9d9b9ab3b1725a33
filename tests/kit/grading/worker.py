"""One exercise of one submission: `python -m tests.kit.grading.worker JOB`, started by the grader in a sandbox.

It copies the submission, judges it by the exercise's contract, and prints one JSON line per fact: a verdict, a note,
what stopped it, and at last `done`. The learner's program runs in a second sandbox inside: it shares nothing with this
process but the loopback, and nothing that it prints comes here. JOB is JSON: exercise, folder, target, work, sandbox
(what the inner one shows; null: there is none), seconds, limits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.chapter import ROOT
from tests.kit import report
from tests.kit.confine import VARIABLE
from tests.kit.contract import Verdict, contract, for_its_author, form
from tests.kit.grading.isolation import GIVEN, KIT
from tests.kit.grading.watch import Watch
from tests.kit.grading.words import explained, scrubbed

SANDBOX = Path(__file__).with_name("sandbox.py")


def main(job: dict[str, Any]) -> int:
    """Judge, and say so line by line."""
    work = Path(job["work"])
    submission, temporary, notes = work / "submission", work / "tmp", work / "notes"
    shutil.copytree(job["folder"], submission)
    (submission / ".git").mkdir(exist_ok=True)  # where looking upwards for a .gitignore ends
    temporary.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    own = [str(submission), str(temporary), *map(str, GIVEN), str(GIVEN[1].parent / "__pycache__"), *map(str, KIT)]
    os.environ[VARIABLE] = json.dumps(inner(job) | {"notes": str(notes), "own": own})
    hide = {str(submission): "", str(work): "(work)/", str(ROOT): "(repository)/", sys.prefix: "(python)/"}

    lock = threading.Lock()

    def say(**facts: Any) -> None:
        with lock:
            print(json.dumps(scrubbed(facts, hide)), flush=True)

    def stop(reason: str) -> None:
        tell_notes()
        say(stopped=reason)
        os._exit(0)  # the first process of its namespace: everything else ends with it

    def tell_notes() -> None:
        if notes.exists():
            for line in sorted(set(notes.read_text(encoding="utf-8", errors="replace").splitlines()))[:20]:
                say(note=line)

    threading.Thread(target=_end_with_the_grader, daemon=True).start()
    Watch(work, job["seconds"], job["namespaces"], stop).start()
    judge(submission / job["target"], job["exercise"], say)
    tell_notes()
    say(done=True)
    return 0


def inner(job: dict[str, Any]) -> dict[str, Any]:
    """Return how the learner's program is confined."""
    prefix = [sys.executable, str(SANDBOX), json.dumps(job["sandbox"])] if job["namespaces"] else []
    return {"prefix": prefix, "namespaces": job["namespaces"]}


def judge(target: Path, exercise: str, say: Any) -> None:
    """Judge one target as `check` does."""
    from tests.kit.app import Bench
    from tests.kit.judging import judge_target
    from tests.kit.target import CannotRun, Target

    def tell(verdict: Verdict) -> None:
        verdict = for_its_author(verdict)
        facts = report.facts(verdict) if verdict.missed else {}
        say(check=verdict.check.id, status=verdict.status, reason=verdict.reason, facts=facts)

    try:
        checks = contract(exercise)
        parsed = Target.parse(str(target), form=form(checks))
        with Bench() as bench:
            judged = judge_target(bench, parsed, checks, tell=tell)
    except (CannotRun, OSError) as error:
        if not Path(re.sub(r"(\.py):\w+$", r"\1", str(target))).exists():
            say(stopped=f"it removed its own files\n{error}")
        elif isinstance(error, CannotRun):
            say(stopped=explained(str(error), error.output))
        else:
            raise
    else:
        for note in judged.notes:
            say(found=note)


def _end_with_the_grader() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    raise SystemExit(main(json.loads(sys.argv[1])))
