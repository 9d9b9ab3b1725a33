"""Our own solutions meet every check of their contracts, and nothing is left unchecked."""

from __future__ import annotations

import pytest

from tests.chapter import EXERCISES, Exercise
from tests.kit import report
from tests.kit.app import Bench
from tests.kit.contract import contract, form
from tests.kit.judging import judge_target
from tests.kit.target import Target

BUILT = [exercise for exercise in EXERCISES if exercise.built]


@pytest.mark.parametrize("exercise", BUILT, ids=lambda exercise: exercise.id)
def test_the_reference_meets_its_contract(exercise: Exercise, bench: Bench) -> None:
    checks = contract(exercise.id)
    target = Target.parse(str(exercise.path), form=form(checks))
    judged = judge_target(bench, target, checks)
    unmet = [verdict for verdict in judged.verdicts if verdict.status != "met"]
    assert not unmet, "\n" + "\n".join(report.lines(unmet))
