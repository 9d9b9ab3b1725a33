"""What counting a cost takes, and the whole dashboard over a million records, beside SQL over the raw rows.

Every figure is the median of repeated runs in one process; the raw rows hold the same records with an index on time.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from exercise_3_19_6_solution import BATCH, CostDashboard

Rows = list[tuple[str, str, str, str]]
RECORDS = 1_000_000
CHUNK = 10_000
ROUNDS = 5
NOW = 1_795_000_000.0
COST = Decimal("0.000360")


def run() -> Rows:
    """Measure a record with few and with many before it, a batch, and the dashboard."""
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder))


def median_s(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median time of a piece of work."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(folder: Path) -> Rows:
    """Fill both stores with the same records, and compare."""
    now = [NOW]
    costs = CostDashboard(str(folder / "costs.sqlite3"), clock=lambda: now[0])
    raw = sqlite3.connect(folder / "raw.sqlite3")
    raw.execute("PRAGMA synchronous = OFF")
    raw.execute("CREATE TABLE calls (at REAL, caller TEXT, model TEXT, conversation TEXT, nano INTEGER)")

    def fill(first: int, count: int) -> float:
        start = time.perf_counter()
        for number in range(first, first + count):
            now[0] = NOW + number * 0.08
            costs.record("caller", f"conversation-{number % 50_000}", "gpt-4o-mini", COST, tokens=1500)
        return (time.perf_counter() - start) / count * 1e6

    def batches() -> tuple[float, float]:
        """Return what a record takes in memory (us), and the one write of a batch of them (ms)."""
        counted, written = [], []
        for _ in range(3 * ROUNDS):
            costs.flush()
            start = time.perf_counter()
            for number in range(BATCH - 1):
                costs.record("caller", f"conversation-{number * 37 % 50_000}", "gpt-4o-mini", COST)
            middle = time.perf_counter()
            costs.flush()
            counted.append((middle - start) / (BATCH - 1) * 1e6)
            written.append((time.perf_counter() - middle) * 1e3)
        return statistics.median(counted), statistics.median(written)

    early = statistics.median(fill(number * CHUNK, CHUNK) for number in range(3))
    record_early, write_early = batches()
    fill(3 * CHUNK, RECORDS - 6 * CHUNK)
    late = statistics.median(fill(RECORDS - (3 - number) * CHUNK, CHUNK) for number in range(3))
    raw.executemany(
        "INSERT INTO calls VALUES (?, 'caller', 'gpt-4o-mini', ?, 360000)",
        ((NOW + number * 0.08, f"conversation-{number % 50_000}") for number in range(RECORDS)),
    )
    raw.execute("CREATE INDEX by_time ON calls (at)")
    raw.commit()

    def views_of_raw_rows() -> None:
        end = now[0]
        raw.execute("SELECT sum(nano) FROM calls").fetchall()
        raw.execute(
            "SELECT CAST(at / 3600 AS INTEGER), sum(nano) FROM calls WHERE at > ? GROUP BY 1", (end - 86_400,)
        ).fetchall()
        raw.execute("SELECT model, sum(nano) FROM calls GROUP BY model").fetchall()
        raw.execute(
            "SELECT conversation, sum(nano) AS total FROM calls GROUP BY conversation ORDER BY total DESC LIMIT 10"
        ).fetchall()

    record_late, write_late = batches()
    counting = median_s(lambda: asyncio.run(costs.get_full_dashboard()), 20)
    alone = median_s(lambda: asyncio.run(asyncio.to_thread(lambda: None)), 20)
    board, sql = max(counting - alone, 1e-6), median_s(views_of_raw_rows, 3)
    costs.close()
    raw.close()
    return [
        (
            "a record in memory",
            f"{record_late:.2f} us after {RECORDS:,}",
            f"{record_early:.2f} us after 30,000",
            f"{record_late / record_early:.2f}, flat; at most 1 us",
        ),
        (
            "a record, its share of the write included",
            f"{late:.1f} us after {RECORDS:,}",
            f"{early:.1f} us after 30,000",
            f"{late / early:.2f}, flat",
        ),
        (
            f"one write of {BATCH} records to SQLite",
            f"{write_late:.1f} ms after {RECORDS:,}",
            f"{write_early:.1f} ms after 30,000",
            f"{write_late / write_early:.2f}",
        ),
        (
            f"all five views at {RECORDS:,} records",
            f"{board * 1e3:.2f} ms",
            f"SQL over raw rows {sql * 1e3:.0f} ms",
            f"1/{sql / board:.0f}, at most 1/200",
        ),
    ]
