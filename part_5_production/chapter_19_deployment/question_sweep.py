"""Which threshold fits an embedder, and how sure one can be: the sweep of exercise 2 (19.6).

    python exercise_2_19_6_solution.py --sweep pairs.jsonl        one {"a": ..., "b": ..., "same": true} a line

Take pairs from your own log, and as many look-alikes as paraphrases: the bound is about the pairs you give.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from question_guard import differ

__all__ = ["Swept", "pick", "report", "sweep", "upper_bound"]

THRESHOLDS = tuple(hundredths / 100 for hundredths in range(40, 100, 4))


@dataclass(frozen=True)
class Swept:
    """One threshold on labelled pairs: pairs served with and without the guard, and how many of them wrongly."""

    threshold: float
    recall: float
    hits: int
    wrong: int
    bound: float
    unguarded_hits: int
    unguarded_wrong: int


def upper_bound(wrong: int, hits: int, confidence: float = 0.95) -> float:
    """Return the highest wrong-hit rate that these counts leave possible (Clopper-Pearson, one-sided).

    With no wrong hit among n it is about 3/n: to claim one in a hundred takes three hundred pairs.
    """
    low, high = 0.0, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        seen = sum(math.comb(hits, k) * rate**k * (1 - rate) ** (hits - k) for k in range(wrong + 1))
        low, high = (rate, high) if seen > 1 - confidence else (low, rate)
    return high


def sweep(
    pairs: Iterable[tuple[str, str, bool]],
    embed: Callable[[str], Any],
    *,
    guard: Callable[[str, str], str] = differ,
    thresholds: Sequence[float] = THRESHOLDS,
) -> list[Swept]:
    """Try thresholds on (question, other question, whether one answer serves both)."""
    scored = [(_cosine(embed(a), embed(b)), not guard(a, b), same) for a, b, same in pairs]
    alike = sum(same for _, _, same in scored)
    rows = []
    for threshold in thresholds:
        near = [(passed, same) for similarity, passed, same in scored if similarity >= threshold]
        served = [same for passed, same in near if passed]
        wrong = served.count(False)
        recall = served.count(True) / alike if alike else 0.0
        near_wrong = sum(not same for _, same in near)
        bound = upper_bound(wrong, len(served))
        rows.append(Swept(threshold, recall, len(served), wrong, bound, len(near), near_wrong))
    return rows


def _cosine(a: Any, b: Any) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.dot(a, b)) / lengths if lengths else 0.0


def pick(rows: Sequence[Swept]) -> Swept:
    """Pick the threshold with the lowest bound; among equals, the one that serves most and is highest."""
    return min(rows, key=lambda row: (round(row.bound, 3), -row.hits, -row.threshold))


def report(path: Path, embed: Callable[[str], Any]) -> str:
    """Sweep the pairs of a file and write the table, with the threshold to take."""
    pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rows = sweep([(pair["a"], pair["b"], pair["same"]) for pair in pairs], embed)
    lines = ["threshold   served  recall  wrong  wrong at most (95 %)   without the guard: served  wrong"]
    for row in rows:
        counts = f"{row.hits:6}  {row.recall:6.0%}  {row.wrong:5}  {row.bound:20.1%}"
        lines.append(f"{row.threshold:9.2f}   {counts}   {row.unguarded_hits:25}  {row.unguarded_wrong:5}")
    best = pick(rows)
    alike = sum(pair["same"] for pair in pairs)
    lines.append(
        f"take {best.threshold:.2f}: serves {best.recall:.0%} of {alike} paraphrases, wrong <= {best.bound:.1%}"
    )
    return "\n".join(lines)
