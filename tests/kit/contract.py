"""A contract: the checks of one exercise, each a plain function of a running app.

    @check("Returns a 429 (Too Many Requests) status when exceeded", chapter="19.2.3 bullet 2", needs={"clock"},
           hints=("where to look", "what to do", "nearly the code"))
    def eleventh_request(app): ...

A check ends in silence (met), in `Missed` (the facts of a report) or in `NotChecked` (why nobody can tell).
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol


class Form(enum.StrEnum):
    """What a contract is about: an app that runs, files as they stand, or a tool that is run on files."""

    APP = "http"
    FILES = "files"
    TOOL = "tool"


CAPABILITIES = frozenset((*Form, "clock", "llm", "logs", "env", "signals"))


class Seen(Protocol):
    """What a check looked at: an exchange with an app, or a place in a file."""

    def sent(self) -> str:
        """Return it in one line."""

    def came(self) -> str:
        """Return what came of it in one line."""

    def curl(self, base: str) -> str:
        """Return a command that shows it again."""


class Subject(Protocol):
    """What is judged, whatever its form."""

    used: bool  # has been spoken to, and may remember it

    @property
    def kind(self) -> str:
        """Say what kind of subject it is, for reasons."""

    @property
    def capabilities(self) -> frozenset[str]:
        """Say what a check may use."""

    @property
    def ended(self) -> bool:
        """Tell whether it can be judged no further."""

    @property
    def base(self) -> str:
        """Return its address, "" if it has none."""

    @property
    def notes(self) -> list[str]:
        """Return what was found out about it."""

    def close(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Check:
    """One check: its id in attempts and mutants, the chapter's own sentence, what it needs, three levels of hints."""

    id: str
    title: str
    chapter: str
    needs: frozenset[str]
    hints: tuple[str, str, str]
    judge: Callable[[Any], None] = field(repr=False)
    beyond: bool = False  # worth knowing, but not asked for: nobody's own work is wrong for it


class Missed(AssertionError):
    """What a check saw instead of what it expected."""

    def __init__(self, *, when: str, expected: str, came: str, seen: Seen | None = None) -> None:
        self.when, self.expected, self.came, self.seen = when, expected, came, seen
        super().__init__(f"{when}: expected {expected}, came {came}")


class NotChecked(Exception):
    """Nobody can tell, and why."""


@dataclass(frozen=True)
class Verdict:
    """What became of one check: "met", "missed" (with the facts) or "not checked" (with the reason)."""

    check: Check
    status: str
    missed: Missed | None = None
    reason: str = ""


def check(
    title: str, *, chapter: str, needs: Iterable[str] = (), hints: tuple[str, str, str], beyond: bool = False
) -> Callable[[Callable[[Any], None]], Check]:
    """Make a function into a check, of a running app unless it needs "files" or a "tool"; its id is its name."""
    needs = frozenset(needs)
    if not needs & set(Form):
        needs |= {Form.APP}
    assert needs <= CAPABILITIES, f"unknown capability in {sorted(needs)}"

    def make(judge: Callable[[Any], None]) -> Check:
        return Check(judge.__name__.replace("_", "-"), title, chapter, needs, hints, judge, beyond)

    return make


def contract(exercise: str) -> list[Check]:
    """Return the checks of an exercise, "19.2.3", in the order in which they are written."""
    module = importlib.import_module(f"tests.contracts.ex_{exercise.replace('.', '_')}")
    return [value for value in vars(module).values() if isinstance(value, Check)]


def worth_thinking(exercise: str) -> str:
    """Return the one difference to the reference that is worth a thought once everything is met."""
    return str(importlib.import_module(f"tests.contracts.ex_{exercise.replace('.', '_')}").WORTH_THINKING)


def form(checks: Iterable[Check]) -> Form:
    """Tell what a contract is about; all its checks are about the same."""
    (found,) = {each for check in checks for each in Form if each in check.needs}
    return found


def expect(holds: bool, *, when: str, expected: str, seen: Seen | None = None, came: str = "") -> None:
    """Raise Missed unless it holds; `came` defaults to what the exchange brought."""
    if not holds:
        raise Missed(when=when, expected=expected, came=came or (seen.came() if seen else "nothing"), seen=seen)


def for_its_author(verdict: Verdict) -> Verdict:
    """Return the verdict as whoever wrote the target is told it: what the chapter does not ask for is never missed."""
    if not (verdict.check.beyond and (missed := verdict.missed)):
        return verdict
    return Verdict(
        verdict.check,
        "not checked",
        reason=f"more than the chapter asks, so it does not count; but see: {missed.when}: "
        f"expected {missed.expected}, came {missed.came}",
    )


def judge(check: Check, subject: Subject) -> Verdict:
    """Run one check against what it is about."""
    if lacking := check.needs - subject.capabilities:
        words = {
            "clock": "a clock that can be moved",
            "llm": "the stand-in model",
            "logs": "the app's output",
            "signals": "signals",
        }
        reason = (
            "needs " + " and ".join(words.get(name, name) for name in sorted(lacking)) + f"; {subject.kind} has none"
        )
        return Verdict(check, "not checked", reason=reason)
    try:
        check.judge(subject)
    except Missed as missed:
        return Verdict(check, "missed", missed=missed)
    except NotChecked as reason:
        return Verdict(check, "not checked", reason=str(reason))
    return Verdict(check, "met")
