"""What a decision of the rate limiter costs, beside `limits` and slowapi.

Every figure is the median of repeated runs, and every ratio compares runs that alternate in one process.
"""

from __future__ import annotations

import asyncio
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from exercise_3_19_2_solution import RateLimiter, create_app
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from slowapi import Limiter

from shared.api import Caller, base_app
from shared.config import DEFAULT_API_KEY, Settings

VERSIONS = ("limits", "slowapi")
DECISIONS = 20_000
REQUESTS = 400
ROUNDS = 7
KEY = "bench-key"
Rows = list[tuple[str, str, str, str]]


def run() -> Rows:
    """Measure decisions, memory and requests."""
    return [*decisions(), *memory(), *asyncio.run(requests())]


def median_us(*work: Callable[[], None], count: int, rounds: int = ROUNDS) -> list[float]:
    """Return microseconds per operation of several pieces of work, measured in turn."""
    taken: list[list[float]] = [[] for _ in work]
    for _ in range(rounds):
        for piece, times in zip(work, taken, strict=True):
            start = time.perf_counter()
            piece()
            times.append((time.perf_counter() - start) / count * 1e6)
    return [statistics.median(times) for times in taken]


def limiter_with(keys: int) -> RateLimiter:
    """Return a limiter that knows so many active keys, besides the one that is measured."""
    limiter = RateLimiter(max_keys=2_000_000)
    for number in range(keys - 1):
        limiter.hit(f"key-{number}")
    limiter.hit(KEY)
    return limiter


def decisions() -> Rows:
    """Compare `hit` with a bare clock reading and with the moving window of `limits`."""

    def decide(limiter: RateLimiter) -> Callable[[], None]:
        def work() -> None:
            hit = limiter.hit
            for _ in range(DECISIONS):
                hit(KEY)

        return work

    moving, per_minute = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(10)
    last: dict[str, float] = {}

    def bare_update(key: str) -> None:
        last[key] = time.monotonic()

    def bare() -> None:
        for _ in range(DECISIONS):
            bare_update(KEY)

    def with_limits() -> None:
        for _ in range(DECISIONS):
            moving.hit(per_minute, KEY)

    accepting = RateLimiter(window_s=1e-9)  # every slot is free again at once

    sizes = (1, 10_000, 1_000_000)
    tables = [limiter_with(size) for size in sizes]
    times = median_us(*map(decide, tables), decide(accepting), bare, with_limits, count=DECISIONS)
    *ours, accepted, floor, theirs = times
    rows = [
        (
            f"a decision, {size:,} keys known",
            f"{us:.2f} us",
            f"`limits` moving window {theirs:.2f} us; bare clock and dictionary {floor:.2f} us",
            f"{us / theirs:.2f} of `limits` (at most 0.15), {us / floor:.1f} times bare (at most 2)",
        )
        for size, us in zip(sizes, ours, strict=True)
    ]
    rows.append(
        (
            "an accepted decision, with its record",
            f"{accepted:.2f} us",
            "refused ones above",
            f"{accepted / theirs:.2f} of `limits`",
        )
    )
    return rows


def memory() -> Rows:
    """Count bytes per active key: ten accepted hits each."""
    keys = [f"key-{number:06d}" for number in range(20_000)]
    moving, per_minute = MovingWindowRateLimiter(MemoryStorage()), RateLimitItemPerMinute(10)
    limiter = RateLimiter()

    def grown(hit: Callable[[str], Any], some: list[str]) -> float:
        tracemalloc.start()
        for key in some:
            for _ in range(10):
                hit(key)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size / len(some)

    ours = grown(limiter.hit, keys)
    theirs = grown(lambda key: moving.hit(per_minute, key), keys[:2_000])
    return [("memory per active key", f"{ours:.0f} bytes", f"`limits` {theirs:.0f} bytes", "at most 600 bytes")]


async def requests() -> Rows:
    """Compare whole requests: an empty route, ours, and slowapi on the same route; ASGI only, no socket."""
    settings = Settings(openai_api_key="sk-bench")

    def plain() -> FastAPI:
        app = base_app(settings)

        @app.post("/v1/chat")
        async def chat(request: Request, caller: Caller) -> JSONResponse:
            return JSONResponse({"response": "", "conversation_id": ""})

        return app

    def limited_by_us() -> FastAPI:
        app = create_app(settings, limiter=RateLimiter(window_s=1e-9))
        route = next(route for route in app.routes if getattr(route, "path", "") == "/v1/chat")
        within_limit = route.dependant.dependencies[0].call  # type: ignore[attr-defined]
        app = base_app(settings)

        @app.post("/v1/chat", dependencies=[Depends(within_limit)])
        async def chat(request: Request) -> JSONResponse:
            return JSONResponse({"response": "", "conversation_id": ""})

        return app

    def limited_by_slowapi() -> FastAPI:
        app = base_app(settings)
        limiter = Limiter(key_func=lambda request: request.headers["x-api-key"], strategy="moving-window")
        app.state.limiter = limiter

        @app.post("/v1/chat")
        @limiter.limit("1000000/minute")
        async def chat(request: Request, caller: Caller) -> JSONResponse:
            return JSONResponse({"response": "", "conversation_id": ""})

        return app

    times = await median_request_us(plain(), limited_by_us(), limited_by_slowapi())
    floor, ours_us, slow_us = times
    return [
        (
            "a request, above the route without a limit",
            f"{ours_us - floor:.0f} us",
            f"slowapi {slow_us - floor:.0f} us; the route itself {floor:.0f} us",
            f"{(ours_us - floor) / (slow_us - floor):.2f} of slowapi (at most 0.5)",
        )
    ]


async def median_request_us(*apps: Callable[..., Awaitable[None]]) -> list[float]:
    """Return microseconds per request, measured in turn."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat",
        "raw_path": b"/v1/chat",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [(b"x-api-key", DEFAULT_API_KEY.encode()), (b"host", b"bench")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    statuses: set[int] = set()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.add(message["status"])

    taken: list[list[float]] = [[] for _ in apps]
    for _ in range(ROUNDS):
        for app, times in zip(apps, taken, strict=True):
            start = time.perf_counter()
            for _ in range(REQUESTS):
                await app(dict(scope), receive, send)
            times.append((time.perf_counter() - start) / REQUESTS * 1e6)
    assert statuses == {200}, statuses
    return [statistics.median(times) for times in taken]
