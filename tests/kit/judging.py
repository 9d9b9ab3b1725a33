"""Judge a target by a contract: one process for all checks, a fresh one before anything is called missed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.kit.app import Bench
from tests.kit.contract import Check, Form, Subject, Verdict, judge
from tests.kit.files import Files
from tests.kit.target import Target
from tests.kit.tool import Tool


@dataclass(frozen=True)
class Judged:
    """The verdicts in the contract's order, what was found out about the target, and the address that it had."""

    verdicts: list[Verdict]
    notes: list[str]
    base: str

    @property
    def missed(self) -> set[str]:
        """The ids of the checks that were missed."""
        return {verdict.check.id for verdict in self.verdicts if verdict.status == "missed"}


def judge_target(
    bench: Bench,
    target: Target,
    checks: Iterable[Check],
    *,
    at: float | None = None,
    shuffle: random.Random | None = None,
    to_the_end: bool = True,
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> Judged:
    """Judge a target, to the end or to the first check that is missed; raises CannotRun.

    The checks share a process while they are met. Anything else counts only if it also happens in a process that no
    other check has touched: what one mistake breaks must not be blamed on the next check. `tell` hears of each verdict
    once it is final.
    """

    def brought_up() -> Subject:
        match target.form:
            case Form.FILES:
                return Files(target)
            case Form.TOOL:
                return Tool(target)
        return bench.open(target, at=at)

    def afresh(subject: Subject) -> Subject:
        subject.close()
        return brought_up()

    checks = list(checks)
    order = shuffle.sample(checks, len(checks)) if shuffle else checks
    verdicts: dict[str, Verdict] = {}
    subject, spoilt = brought_up(), False
    try:
        for check in order:
            if spoilt:
                subject, spoilt = afresh(subject), False
            used = subject.used
            verdict = judge(check, subject)
            if verdict.status != "met" and used and not target.url:
                subject = afresh(subject)
                verdict = judge(check, subject)
            spoilt = subject.used and (verdict.status == "missed" or subject.ended) and not target.url
            verdicts[check.id] = verdict
            tell(verdict)
            if verdict.status == "missed" and not to_the_end:
                break
        return Judged([verdicts[check.id] for check in checks if check.id in verdicts], subject.notes, subject.base)
    finally:
        subject.close()
