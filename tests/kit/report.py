"""What a person reads: one line a check, the first failure in full, and what to do next."""

from __future__ import annotations

from tests.kit.contract import Verdict

INDENT = " " * 6


def lines(verdicts: list[Verdict], *, replay: str | None = None) -> list[str]:
    """Return the report on one target; `replay` is the app's address when the request should be shown as a command."""
    out, told = [], False
    for verdict in verdicts:
        title = verdict.check.title
        if verdict.status == "met":
            out.append(f"ok    {title}")
        elif verdict.status == "not checked":
            out.append(f"--    {title}\n{INDENT}not checked: {verdict.reason}")
        else:
            out.append(f"FAIL  {title}")
            if not told:
                out.extend(block(verdict, replay=replay))
                told = True
    return out


def block(verdict: Verdict, *, replay: str | None = None) -> list[str]:
    """Return the facts of a missed check as labelled lines."""
    return [f"{INDENT}{name:<10}{text}" for name, text in facts(verdict, replay=replay).items()]


def facts(verdict: Verdict, *, replay: str | None = None) -> dict[str, str]:
    """Return the facts of a missed check: when, sent, expected, came, and where the chapter asks for it."""
    missed = verdict.missed
    assert missed
    over_http = "http" in verdict.check.needs
    label, nothing = ("sent", "(several requests)") if over_http else ("file", "(none)")
    section, exercise, bullet = _place(verdict.check.chapter)
    told = {
        "when": missed.when,
        label: missed.seen.sent() if missed.seen else nothing,
        "expected": missed.expected,
        "came": missed.came,
        "chapter": f"section {section}, exercise {exercise}" + (f", bullet {bullet}" if bullet else ""),
    }
    if replay is not None and missed.seen and over_http:
        told["replay"] = missed.seen.curl(replay)
    return told


def summary(verdicts: list[Verdict]) -> str:
    """Count: what is met, missed and not checked."""
    count = {status: sum(v.status == status for v in verdicts) for status in ("met", "missed", "not checked")}
    return ", ".join(f"{n} {status}" for status, n in count.items() if n)


def exit_status(verdicts: list[Verdict]) -> int:
    """0 all met, 1 something missed, 2 nothing could be judged."""
    if any(v.status == "missed" for v in verdicts):
        return 1
    return 0 if any(v.status == "met" for v in verdicts) else 2


def _place(chapter: str) -> tuple[str, str, str]:
    exercise, _, bullet = chapter.partition(" bullet ")
    section, _, number = exercise.rpartition(".")
    return section, number, bullet
