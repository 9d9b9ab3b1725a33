"""What watching a request costs when nothing is wrong, beside rebuilding the window and creating a task each time.

The best of several runs that alternate in one process; then one webhook that hangs, and a burst of failures.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from exercise_3_19_4_solution import Alert, AlertCourier, AlertMonitor

VERSIONS: tuple[str, ...] = ()
REQUESTS = 2_000
ROUNDS = 25  # short ones: the best is undisturbed
BURST = 1_000
Rows = list[tuple[str, str, str, str]]


def run() -> Rows:
    """Measure a watched request, and count what a burst sends."""
    return asyncio.run(measure())


async def measure() -> Rows:
    """Compare both ways in one loop."""
    monitor = AlertMonitor()
    records: deque[dict[str, Any]] = deque(maxlen=1_000)

    async def check() -> None:
        window = list(records)[-10:]
        failed = sum(not record["ok"] for record in window) / len(window)
        mean = sum(record["took"] for record in window) / len(window)
        assert failed <= 0.2 and mean <= 10

    async def ours() -> None:
        for _ in range(REQUESTS):
            monitor.finish(monitor.start(), False)

    async def naive() -> None:
        for _ in range(REQUESTS):
            start = time.monotonic()
            records.append({"ok": True, "took": time.monotonic() - start})
            await asyncio.create_task(check())

    taken: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for work, times in zip((ours, naive), taken, strict=True):
            begun = time.perf_counter()
            await work()
            times.append((time.perf_counter() - begun) / REQUESTS * 1e6)
    mine, other = map(min, taken)
    posts, slowest_us = await burst()
    return [
        (
            "watching a request",
            f"{mine:.2f} us",
            f"a task and a new window each: {other:.2f} us",
            f"{mine / other:.2f} of it, at most 1 us",
        ),
        (f"posts for {BURST} failures at once", str(posts), "-", "1"),
        ("the slowest of them, while the webhook hangs", f"{slowest_us:.0f} us", "-", "at most 5,000 us"),
    ]


async def burst() -> tuple[int, float]:
    """Return how many alerts a burst posts while the webhook hangs, and how long the slowest report took."""
    monitor, posted, over = AlertMonitor(), list[Alert](), asyncio.Event()

    async def hang(alert: Alert) -> None:
        posted.append(alert)
        await over.wait()

    courier, slowest = AlertCourier(monitor, hang), 0.0
    async with courier.running():
        requests = [monitor.start() for _ in range(BURST)]
        for request in requests:
            begun = time.perf_counter()
            courier.put(monitor.finish(request, True))
            slowest = max(slowest, time.perf_counter() - begun)
            await asyncio.sleep(0)
        over.set()
    return len(posted), slowest * 1e6
