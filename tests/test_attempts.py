"""Accepted attempts miss nothing, rejected ones what they declare; that they miss nothing else, `exam` looks at."""

from __future__ import annotations

import pytest

from tests.chapter import EXERCISES
from tests.kit import report
from tests.kit.app import Bench
from tests.kit.attempts import Attempt, attempts
from tests.kit.contract import contract, form
from tests.kit.judging import judge_target
from tests.kit.target import Target

BUILT = [exercise.id for exercise in EXERCISES if exercise.built]


@pytest.mark.parametrize("attempt", attempts(), ids=str)
def test_an_attempt_is_judged_as_it_declares(attempt: Attempt, bench: Bench) -> None:
    checks = contract(attempt.exercise)
    target = Target.parse(str(attempt.path), form=form(checks))
    declared = [check for check in checks if check.id in attempt.must_fail]
    judged = judge_target(bench, target, declared or checks)
    assert attempt.counted(judged.missed) == attempt.must_fail, "\n" + "\n".join(report.lines(judged.verdicts))


@pytest.mark.parametrize("exercise", BUILT)
def test_every_check_has_a_rejected_attempt_and_every_exercise_two_accepted(exercise: str) -> None:
    rejected = [attempt for attempt in attempts(exercise) if attempt.must_fail]
    accepted = [attempt for attempt in attempts(exercise) if not attempt.must_fail]
    caught_alone = {next(iter(attempt.must_fail)) for attempt in rejected if len(attempt.must_fail) == 1}
    assert {check.id for check in contract(exercise)} - caught_alone == set()
    assert len(accepted) >= 2
