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
SIZES = (1_000, 10_000, 100_000)
Matrix = NDArray[np.float32]


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


def vectors(count: int, seed: int = 0) -> Matrix:
    """Return random directions."""
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def filled(rows: Matrix) -> SemanticCache:
    """Return a cache with these vectors, put in as `set` would."""
    cache = SemanticCache(max_entries=len(rows))
    for i, row in enumerate(rows):
        cache._store(f"question {i}", "answer", row, "scope")
    return cache


def us(value: float) -> str:
    return f"{value / 1000:,.2f} ms" if value >= 1000 else f"{value:,.2f} us"


def run() -> list[tuple[str, str, str, str]]:
    faiss.omp_set_num_threads(1)
    rows_out = []
    for size in SIZES:
        rows = vectors(size)
        index = faiss.IndexFlatIP(DIMENSIONS)
        index.add(rows)
        query = vectors(1, seed=1)[0]
        cache = filled(rows)
        ours, theirs, plain = best_us(
            lambda cache=cache, query=query: cache._near(query, "scope"),  # type: ignore[misc]
            lambda index=index, query=query: index.search(query[None], 10),  # type: ignore[misc]
            lambda rows=rows, query=query: rows @ query,  # type: ignore[misc]
        )
        target = "at most 1, stretch 0.4" if size > 1000 else "at most 1"
        rows_out.append((f"lookup among {size:,}", us(ours), f"FAISS {us(theirs)}", f"{ours / theirs:.2f} ({target})"))
        rows_out.append((f"lookup among {size:,}", us(ours), f"plain product {us(plain)}", f"{ours / plain:.2f}"))
        if size == 10_000:
            rows[:, :256] *= 0.1 / np.linalg.norm(rows[:, :256], axis=1, keepdims=True)
            rows[:, 256:] *= np.sqrt(1 - 0.1**2) / np.linalg.norm(rows[:, 256:], axis=1, keepdims=True)
            against = filled(rows)
            query = rows[0]
            ours, plain = best_us(lambda: against._near(query, "scope"), lambda: rows @ query)  # noqa: B023
            rows_out.append(
                ("lookup among 10,000, against it", us(ours), f"plain product {us(plain)}", f"{ours / plain:.2f} (1.3)")
            )
            held, needed = (
                sum(part.nbytes for part in (cache._head, cache._tail, cache._rest, cache._scope)),
                rows.nbytes,
            )
            rows_out.append(("memory of 10,000", f"{held:,} B", f"vectors {needed:,} B", f"{held / needed:.2f} (1.1)"))
            (exact,) = best_us(lambda: cache.get("question 77", "scope"))  # noqa: B023
            rows_out.append(("exact hit", us(exact), "", "about 1 us"))
            full = iter(range(10**9))
            (insert,) = best_us(lambda: cache._store(f"new {next(full)}", "answer", query, "scope"))  # noqa: B023
            rows_out.append(("insert into a full cache", us(insert), "", "about 10 us"))
    read.cache_clear()
    one, other = "How do I reset my password on the site?", "What's the best way to reset a password on the website?"
    (cold,) = best_us(lambda: read.cache_clear() or differ(one, other))  # type: ignore[func-returns-value]
    (warm,) = best_us(lambda: differ(one, other))
    rows_out.append(("guard, both questions new", us(cold), "", ""))
    rows_out.append(("guard, both questions read before", us(warm), "", ""))
    return rows_out
