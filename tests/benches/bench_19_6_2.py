"""Semantic cache: one lookup among vectors of 1536 float32 beside FAISS and plain numpy, and its smaller parts.

One thread each. "Against it" are vectors with next to nothing in their first 256 dimensions: the bound rules no row
out, and every row is read in full.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when numpy is imported

import faiss
import numpy as np
from exercise_2_19_6_solution import SemanticCache
from numpy.typing import NDArray

from question_guard import differ, read

VERSIONS = ("numpy", "faiss-cpu")
DIMENSIONS = 1536
Matrix = NDArray[np.float32]
Row = tuple[str, str, str, str]


def best_us(*calls: Callable[[], object], seconds: float = 0.6) -> list[float]:
    """Return each call's best time in microseconds, the calls taking turns."""
    best = [float("inf")] * len(calls)
    end = time.perf_counter() + seconds * len(calls)
    while time.perf_counter() < end:
        for i, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[i] = min(best[i], 1e6 * (time.perf_counter() - started))
    return best


def unit(rows: Matrix) -> Matrix:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def vectors(count: int, *, alike: float = 0.0, seed: int = 0) -> Matrix:
    """Return random directions; `alike` is the similarity that any two of them have."""
    rows = unit(np.random.default_rng(seed).standard_normal((count, DIMENSIONS), dtype=np.float32))
    common = np.full(DIMENSIONS, DIMENSIONS**-0.5, np.float32)
    return unit((1 - alike) ** 0.5 * rows + alike**0.5 * common)


def filled(rows: Matrix, threshold: float) -> SemanticCache:
    """Return a cache with these vectors, put in as `set` would."""
    cache = SemanticCache(threshold, max_entries=len(rows))
    for i, row in enumerate(rows):
        cache._store(f"question {i}", "answer", row, "scope")
    return cache


def us(value: float) -> str:
    return f"{value / 1000:,.2f} ms" if value >= 1000 else f"{value:,.2f} us"


def lookup(what: str, rows: Matrix, query: Matrix, threshold: float, target: str) -> list[Row]:
    """Time one lookup in ours, in FAISS and as a plain product of all rows."""
    index = faiss.IndexFlatIP(DIMENSIONS)
    index.add(rows)
    cache = filled(rows, threshold)
    ours, theirs, plain = best_us(
        lambda: cache._near(query, "scope"), lambda: index.search(query[None], 10), lambda: rows @ query
    )
    return [
        (what, us(ours), f"FAISS IndexFlatIP {us(theirs)}", f"{ours / theirs:.2f}, {target}"),
        (what, us(ours), f"product of all rows {us(plain)}", f"{ours / plain:.2f}"),
    ]


def parts() -> list[Row]:
    """Time what is not the lookup."""
    rows = vectors(10_000)
    cache, query = filled(rows, 0.92), rows[0]
    held = sum(part.nbytes for part in (cache._head, cache._tail, cache._rest, cache._scope))
    names = (f"new question {n}" for n in range(10**9))
    exact, insert = best_us(
        lambda: cache.get("question 77", "scope"), lambda: cache._store(next(names), "answer", query, "scope")
    )
    one, other = "How do I reset my password on the site?", "What's the best way to reset a password on the website?"
    (cold,) = best_us(lambda: read.cache_clear() or differ(one, other))  # type: ignore[func-returns-value]
    (warm,) = best_us(lambda: differ(one, other))
    return [
        ("memory of 10,000", f"{held:,} B", f"the vectors {rows.nbytes:,} B", f"{held / rows.nbytes:.3f}, at most 1.1"),
        ("exact hit", us(exact), "", "about 1 us"),
        ("insert into a full cache", us(insert), "", "about 10 us"),
        ("guard, both questions new", us(cold), "", ""),
        ("guard, both questions read before", us(warm), "", ""),
    ]


def run() -> list[Row]:
    faiss.omp_set_num_threads(1)
    table: list[Row] = []
    for size in (1_000, 10_000, 100_000):
        target = "at most 1" if size < 10_000 else "at most 1, stretch 0.4"
        table += lookup(f"lookup among {size:,}", vectors(size), vectors(1, seed=1)[0], 0.92, target)
    rows, query = vectors(10_000, alike=0.3), vectors(1, alike=0.3, seed=1)[0]
    table += lookup("among 10,000, all 0.3 alike, threshold 0.60", rows, query, 0.60, "at most 1")
    rows[:, :256] *= 0.01
    table += lookup("among 10,000, against it", unit(rows), rows[0], 0.92, "of the product at most 1.3")
    return table + parts()
