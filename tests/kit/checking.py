"""`check` and `hint`: what a learner types, and what they read."""

from __future__ import annotations

import datetime
import sys

from tests.chapter import ROOT, Exercise
from tests.kit import remembered, report
from tests.kit.contract import contract, for_its_author, form, worth_thinking
from tests.kit.target import CannotRun, Target
from tests.kit.watching import watch

SERVED = "http://127.0.0.1:8000"  # where uvicorn puts an app unless told otherwise


def check_and_watch(
    exercise: Exercise, mine: str | None, keys: str, *, replay: bool = False, at: str | None = None
) -> int:
    """Check again after every change, until Ctrl-C."""
    try:
        target = Target.parse(mine or str(exercise.path), keys, form=form(contract(exercise.id)))
    except CannotRun as error:
        _print(f"cannot run  {error}")
        return 2
    if target.file is None:
        print("WATCH=1 looks at files: name yours, as MINE=my_app.py", file=sys.stderr)
        return 2
    return watch(target.file, lambda: check_one(exercise, mine, keys, replay=replay, at=at))


def check_one(
    exercise: Exercise, mine: str | None, keys: str, *, replay: bool = False, at: str | None = None, live: bool = False
) -> int:
    """Check one target by the exercise's contract and print the report; returns the exit status.

    With `live` the model is the real one: checks that must tell it to fail or to wait are not made.
    """
    from tests.kit.app import Bench
    from tests.kit.judging import judge_target
    from tests.kit.live import NotLive, go_live

    _print(f"{exercise.id} {exercise.heading}: {mine or exercise.path.name}\n")
    try:
        checks = contract(exercise.id)
        target = Target.parse(mine or str(exercise.path), keys, form=form(checks))
        forwarder = go_live() if live else None
        with Bench(live=forwarder) if forwarder else Bench() as bench:
            judged = judge_target(bench, target, checks, at=_today(at))
        if forwarder:
            _print(f"{forwarder.told()}\n")
    except NotLive as reason:
        print(f"cannot run  {reason}")
        return 2
    except CannotRun as error:
        first, *rest = str(error).splitlines()
        _print("\n".join([f"cannot run  {first}", *(f"            {line}" for line in rest)]))
        print("\nNothing was judged.")
        return 2
    verdicts = [for_its_author(verdict) for verdict in judged.verdicts]
    for note in judged.notes:
        _print(f"note  {note}")
    _print("\n".join(report.lines(verdicts, replay=(judged.base if target.url else SERVED) if replay else None)))
    status = report.exit_status(verdicts)
    print(f"\n{report.summary(verdicts)}")
    if status == 1:
        again = f" MINE={mine}" if mine else ""
        _print(f"next: make hint EX={exercise.id}, then make check EX={exercise.id}{again}")
    elif mine and status == 0:
        print(f"ours, to compare: {exercise.path.relative_to(ROOT).as_posix()}")
        print(f"worth thinking about: {worth_thinking(exercise.id)}")
    if mine and not live:
        remembered.remember(exercise.id, verdicts)
    return status


def print_hints(exercise: Exercise, level: int, only: str | None) -> int:
    """Print the hints of one level; the third ends at the reference."""
    checks = contract(exercise.id)
    if only and only not in [check.id for check in checks]:
        print(f"no check is called {only!r}; there are: {', '.join(check.id for check in checks)}", file=sys.stderr)
        return 2
    for check in checks:
        if only in (None, check.id):
            _print(f"{check.title}\n      {check.hints[level - 1]}\n      (check: {check.id})\n")
    if level < 3:
        print(f"more: make hint EX={exercise.id} LEVEL={level + 1}")
    else:
        print(f"the whole solution: {exercise.path.relative_to(ROOT).as_posix()}")
    return 0


def _today(at: str | None) -> float | None:
    if at is None:
        return None
    time = datetime.time.fromisoformat(at)
    return datetime.datetime.combine(datetime.date.today(), time).timestamp()


def _print(text: str) -> None:
    print(text.encode("ascii", "backslashreplace").decode(), flush=True)
