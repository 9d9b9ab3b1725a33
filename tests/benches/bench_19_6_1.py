"""What a decision of the router costs, beside one search with a pattern of keywords, and how it grows with the message.

Every figure is the best of repeated runs in one process; the messages are the labelled ones of the tests.
LiteLLM's complexity router stands beside it where `litellm` is installed. It is not among the pinned packages, because
it brings some sixty others (300 MB) and pins of its own: `pip install litellm` into an environment to throw away.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from exercise_1_19_6_solution import SmartModelRouter, measure

from message_signals import HARD, LARGE, PLAIN

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


def litellm_tier() -> Callable[[str], str] | None:
    """Return how LiteLLM's complexity router names a message's tier, None where it is not installed."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # importing it fetches a list of prices otherwise
    try:
        module = importlib.import_module("litellm.router_strategy.complexity_router.complexity_router")
    except ImportError:
        return None
    tiers = {"SIMPLE": "a", "MEDIUM": "b", "COMPLEX": "c", "REASONING": "c"}
    router = module.ComplexityRouter("bench", None, {"tiers": tiers})
    return lambda message: str(router.classify(message)[0].value).lower().replace("reasoning", "complex")


def run() -> Rows:
    """Measure ordinary messages, long ones, and how right the decisions are."""
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    messages = [row["message"] for row in rows]
    router = SmartModelRouter()
    keywords = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, HARD | LARGE | PLAIN))) + r")\b")
    ours = best_us(lambda: [router.route(message) for message in messages], len(messages))
    searched = best_us(lambda: [keywords.search(message.lower()) for message in messages], len(messages))
    beside = litellm_tier()
    theirs = best_us(lambda: [beside(message) for message in messages], len(messages)) if beside else None
    mean = sum(map(len, messages)) / len(messages)

    def by_length(message: str) -> str:
        return "simple" if len(message) < 40 else "medium" if len(message) < 90 else "complex"

    right = sum(by_length(row["message"]) == row["tier"] for row in rows) / len(rows)
    unseen = measure(router, [(row["tier"], row["message"]) for row in rows if row["split"] == "unseen"])
    hard = [row["message"] for row in rows if row["split"] == "unseen" and row["tier"] == "complex"]
    table = [
        (
            f"a decision, messages of {mean:.0f} characters",
            f"{ours:.1f} us",
            f"one keyword pattern {searched:.1f} us",
            f"{ours / searched:.1f}, at most 20 us",
        ),
        (
            "the same",
            f"{ours:.1f} us",
            f"LiteLLM's complexity router {theirs:.0f} us" if theirs else "LiteLLM's router: not installed",
            f"1/{theirs / ours:.0f}" if theirs else "-",
        ),
        (
            "accuracy on the labelled messages",
            f"{unseen.accuracy:.2f} on the unseen {unseen.messages}",
            f"length alone {right:.2f} on all",
            f"macro-F1 {unseen.macro_f1:.2f}, at least 0.85",
        ),
        (
            "complex messages sent to a weaker model",
            f"{unseen.under_routed:.0%} of the unseen",
            f"LiteLLM's defaults {sum(beside(text) != 'complex' for text in hard) / len(hard):.0%}" if beside else "-",
            "at most 5 %",
        ),
    ]
    for size in (1_000, 10_000, 1_000_000):
        text = ("we looked at it and wrote down what we saw, " * (size // 40))[:size]
        took = best_us(lambda text=text: router.route(text), 1)  # type: ignore[misc]
        table.append(
            (f"a message of {size:,} characters", f"{took:.0f} us", "-", f"{took / size * 1000:.1f} us per 1000")
        )
    return table
