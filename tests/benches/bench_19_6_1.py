"""What a decision of the router costs, beside one search with a pattern of keywords, and how it grows with the message.

Every figure is the best of repeated runs in one process; the messages are the labelled ones of the tests.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from exercise_1_19_6_solution import HARD, LARGE, PLAIN, SmartModelRouter, measure

Rows = list[tuple[str, str, str, str]]
DATA = Path(__file__).resolve().parents[1] / "data" / "routing_messages.jsonl"
ROUNDS = 15


def best_us(work: Callable[[], object], count: int) -> float:
    """Return the least time per operation: what is measured is the work, not this machine's other work."""
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken) / count * 1e6


def run() -> Rows:
    """Measure ordinary messages, long ones, and how right the decisions are."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    messages = [row["message"] for row in rows]
    router = SmartModelRouter()
    keywords = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, HARD | LARGE | PLAIN))) + r")\b")
    ours = best_us(lambda: [router.route(message) for message in messages], len(messages))
    searched = best_us(lambda: [keywords.search(message.lower()) for message in messages], len(messages))
    mean = sum(map(len, messages)) / len(messages)

    def by_length(message: str) -> str:
        return "simple" if len(message) < 40 else "medium" if len(message) < 90 else "complex"

    right = sum(by_length(row["message"]) == row["tier"] for row in rows) / len(rows)
    unseen = measure(router, [(row["tier"], row["message"]) for row in rows if row["split"] == "unseen"])
    table = [
        (
            f"a decision, messages of {mean:.0f} characters",
            f"{ours:.1f} us",
            f"one keyword pattern {searched:.1f} us",
            f"{ours / searched:.1f}, at most 20 us",
        ),
        (
            "accuracy on the labelled messages",
            f"{unseen.accuracy:.2f} on the unseen {unseen.messages}",
            f"length alone {right:.2f} on all",
            f"macro-F1 {unseen.macro_f1:.2f}, at least 0.85",
        ),
    ]
    for size in (1_000, 10_000, 1_000_000):
        text = ("we looked at it and wrote down what we saw, " * (size // 40))[:size]
        took = best_us(lambda text=text: router.route(text), 1)  # type: ignore[misc]
        table.append(
            (f"a message of {size:,} characters", f"{took:.0f} us", "-", f"{took / size * 1000:.1f} us per 1000")
        )
    return table
