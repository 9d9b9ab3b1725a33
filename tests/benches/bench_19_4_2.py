"""What recording a request and showing the metrics cost, beside prometheus-client and a list of records.

The best of several runs that alternate in one process. "After 1,000,000": so many requests were recorded before.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from exercise_2_19_4_solution import Metrics
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

VERSIONS = ("prometheus-client",)
RECORDS = 5_000
LOOKS = 20
ROUNDS = 7
MANY = 1_000_000
Rows = list[tuple[str, str, str, str]]


def best_us(*work: tuple[Callable[[], object], int]) -> list[float]:
    """Return microseconds per call of several (call, repetitions), measured in turn."""
    taken: list[list[float]] = [[] for _ in work]
    for _ in range(ROUNDS):
        for (call, count), times in zip(work, taken, strict=True):
            start = time.perf_counter()
            for _ in range(count):
                call()
            times.append((time.perf_counter() - start) / count * 1e6)
    return [min(times) for times in taken]


def filled(count: int) -> Metrics:
    """Return metrics that have seen so many requests."""
    metrics = Metrics()
    for number in range(count):
        metrics.record("POST", "/v1/chat", 200, (number * 7919 % 10_007) / 10_007)
    return metrics


def run() -> Rows:
    """Measure recording and showing."""
    few, many = filled(1_000), filled(MANY)
    registry = CollectorRegistry()
    labels = ("method", "route", "status")
    counter = Counter("requests", "requests", labels, registry=registry)
    histogram = Histogram("duration", "duration", ("method", "route"), registry=registry)
    records = [(number, (number * 7919 % 10_007) / 10_007) for number in range(MANY)]

    def prometheus() -> None:
        counter.labels("POST", "/v1/chat", "200").inc()
        histogram.labels("POST", "/v1/chat").observe(0.25)

    def listed() -> None:
        durations = [duration for _, duration in records]
        np.percentile(durations, 95)
        sum(1 for at, _ in records if at > MANY - 300)

    young, old, theirs = best_us(
        (lambda: few.record("POST", "/v1/chat", 200, 0.25), RECORDS),
        (lambda: many.record("POST", "/v1/chat", 200, 0.25), RECORDS),
        (prometheus, RECORDS),
    )
    for number in range(1_000):  # the window must not hold one value only
        many.record("POST", "/v1/chat", 200, (number * 7919 % 10_007) / 10_007)
    shown, exposed, page = best_us((many.snapshot, LOOKS), (lambda: generate_latest(registry), LOOKS), (listed, 1))
    return [
        ("recording a request", f"{young:.2f} us", f"prometheus-client: {theirs:.2f} us",
         f"{young / theirs:.2f} of it, at most 0.4"),
        (f"recording a request after {MANY:,}", f"{old:.2f} us", f"after 1,000: {young:.2f} us",
         f"{old / young:.2f} of it, flat"),
        (f"the dashboard after {MANY:,}", f"{shown / 1000:.3f} ms", f"prometheus-client: {exposed / 1000:.3f} ms",
         f"{shown / exposed:.2f} of it, at most 1"),
        (f"the dashboard after {MANY:,}", f"{shown / 1000:.3f} ms", f"a list of records: {page / 1000:.0f} ms",
         f"1 : {page / shown:.0f}"),
    ]  # fmt: skip
