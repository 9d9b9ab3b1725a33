"""How far the load generator can be trusted: its ceiling beside hey's, and Little's law on a server of known speed.

The ceiling is measured against a page that does nothing, with 32 clients; hey stands beside it where it is installed.
The server of known speed takes 50 ms for a request and four requests at a time, so it answers 80 a second.
"""

from __future__ import annotations

import asyncio
import shutil

from exercise_1_19_5_solution import closed_loop, run_hey, sender, served, summarize

CLIENTS = 32
SERVICE_S, LIMIT = 0.05, 4


async def ceiling(base: str) -> float:
    """Return answers per second of a page that does nothing."""
    async with sender(f"{base}/health") as send:
        return summarize(CLIENTS, await closed_loop(send, CLIENTS, per_client=40)).throughput


async def limited() -> float:
    """Return the throughput that is reported for a server of known speed."""
    places = asyncio.Semaphore(LIMIT)

    async def send() -> str:
        async with places:
            await asyncio.sleep(SERVICE_S)
        return "200"

    return summarize(16, await closed_loop(send, 16, per_client=20)).throughput


def run() -> list[tuple[str, str, str, str]]:
    """Return rows of: what, ours, beside it, ratio and target."""
    with served(0.0) as base:
        ours = asyncio.run(ceiling(base))
        heys = summarize(32, run_hey(f"{base}/health", "", None, 32, 3200)).throughput if shutil.which("hey") else None
    known, reported = LIMIT / SERVICE_S, asyncio.run(limited())
    return [
        (
            "ceiling against an empty page, 32 clients",
            f"{ours:.0f} answers/s",
            f"hey {heys:.0f} answers/s" if heys else "hey is not installed",
            f"{ours / heys:.2f}x" if heys else "-",
        ),
        (
            "throughput of a server of known speed",
            f"{reported:.1f}/s",
            f"by Little's law {known:.1f}/s",
            f"{reported / known:.2f}x (target within 10 %)",
        ),
    ]
