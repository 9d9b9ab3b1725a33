"""How long the detector takes for a message of 1,000 characters, and whether time stays linear up to 1 MB.

Beside it: one pass of a regular expression that lists phrases (eight alternatives, ignoring case), as tutorials do it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from exercise_2_19_7_solution import OutputFilter, detect

CORPORA = Path(__file__).parents[1] / "data" / "injection"
PHRASES = re.compile(
    "ignore (all )?(previous|prior|above) instructions|disregard .{0,20}instructions|you are now|forget everything|"
    "reveal .{0,20}prompt|system prompt|do anything now|jailbreak",
    re.IGNORECASE,
)
REPEAT = 300
HOSTILE = (
    "\n",
    "- a\n",
    "1. a\n",
    ".- ",
    "%25",
    "&amp;",
    "\\u0061",
    "0x61 ",
    "one two three ",
    "a1B2",
    "QUJD",
    "=61",
    "<",
    "\u0430",
)


def microseconds(work: Callable[[], object], repeat: int = REPEAT) -> float:
    """Return the least processor time of several rounds: the one that was disturbed least."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1e6


def message(heading: str, size: int) -> str:
    """Return text of the corpus under a heading that is no attack by either measure, cut to size."""
    lines: list[str] = []
    kept = False
    for line in (CORPORA / "tune.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            kept = line.startswith(f"# {heading}")
        elif kept and not detect(line) and not PHRASES.search(line):
            lines.append(line)
    text = " ".join(lines)
    return (text * (size // len(text) + 1))[:size]


def run() -> list[tuple[str, str, str, str]]:
    """Measure and return the rows."""
    rows = []
    for heading in ("ordinary", "hard"):
        text = message(heading, 1_000)
        ours, phrases = microseconds(lambda text=text: detect(text)), microseconds(lambda t=text: PHRASES.search(t))  # type: ignore[misc]
        name = f"detect, 1,000 characters, {heading}"
        rows.append((name, f"{ours:.0f} us", f"eight phrases {phrases:.0f} us", f"{ours:.0f} us, at most 30"))
    small, large = message("hard", 10_000), message("hard", 1_000_000)
    one, hundred = microseconds(lambda: detect(small), 20), microseconds(lambda: detect(large), 3)
    rows.append(
        ("detect, 1 MB", f"{hundred / 1e3:.0f} ms", f"10 kB {one / 1e3:.2f} ms", f"{hundred / one:.0f}, linear is 100")
    )
    guard = OutputFilter("x" * 60 + "You are the support agent of a lamp shop.", ("ref-0123456789ab",))
    reply = message("ordinary", 1_000)
    ours = microseconds(lambda: guard.leaks(reply))
    rows.append(("output filter, 1,000 characters", f"{ours:.0f} us", "-", f"{ours:.0f} us, at most 30"))
    growth, unit = max((grows(guard, unit), unit) for unit in HOSTILE)
    rows.append(
        ("output filter, worst of hostile replies", f"{growth:.0f} times", repr(unit), "100 kB / 10 kB: linear is 10")
    )
    return rows


def grows(guard: OutputFilter, unit: str) -> float:
    """Return how much longer ten times as much of a unit takes."""
    short, long = (unit * (size // len(unit)) for size in (10_000, 100_000))
    return microseconds(lambda: guard.leaks(long), 3) / microseconds(lambda: guard.leaks(short), 5)
