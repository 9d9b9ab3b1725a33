"""What parts of the service cost, measured in this process: its middleware, a cache hit, each call of a store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from langgraph.checkpoint.base import empty_checkpoint
from pydantic import SecretStr
from secure import Secure
from secure.middleware import SecureASGIMiddleware
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from slowapi.util import get_remote_address

from production.app import create_app
from production.settings import Production
from production.stores import Stores, open_stores

ROUNDS, REQUESTS, CALLS = 7, 300, 200
CALLER = "caller-bench"
SCOPE = {
    "type": "http", "method": "GET", "path": "/bench", "raw_path": b"/bench", "query_string": b"", "scheme": "http",
    "headers": [(b"host", b"app")], "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("app", 80),
    "asgi": {"version": "3.0"}, "root_path": "",
}  # fmt: skip
Rows = list[tuple[str, str, str, str]]
Run = Callable[[], Awaitable[Any]]


def settings(folder: Path, url: str, **more: Any) -> Production:
    """Return the service's settings."""
    return Production(
        openai_api_key=SecretStr("sk-test"),
        api_key=SecretStr("bench-key-of-sixteen-letters"),
        openai_base_url=url,
        state_db=str(folder / f"{time.monotonic_ns()}.sqlite3"),
        rate_limit=100_000,
        **more,
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Throw the log away after it has been written: its cost counts, its lines do not."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def timed(work: Callable[[Path], Awaitable[Rows]]) -> Rows:
    """Run a part on uvloop, which the server runs on, where it exists."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=new_loop()) as runner:
        return runner.run(work(Path(folder)))  # type: ignore[arg-type]  # a coroutine


def new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop, None where it is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


# ---------------------------------------------------------------- middleware


def with_route(app: FastAPI) -> FastAPI:
    """Add the route that is measured, first of all."""

    async def answer() -> dict[str, str]:
        return {"status": "ok"}

    app.add_api_route("/bench", answer)
    app.router.routes.insert(0, app.router.routes.pop())
    return app


def rival() -> FastAPI:
    """Return an app with the three packages that do some of the same."""
    app = with_route(FastAPI())
    app.state.limiter = Limiter(get_remote_address, default_limits=["1000000/minute"])
    app.add_middleware(SlowAPIASGIMiddleware)
    app.add_middleware(CorrelationIdMiddleware)
    app.add_middleware(SecureASGIMiddleware, secure=Secure.with_default_headers())
    return app


async def receive() -> dict[str, Any]:
    """Return an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Throw the answer away."""
    assert message.get("status", 200) == 200


async def per_request(app: Any) -> float:
    """Return microseconds per request."""
    began = time.perf_counter()
    for _ in range(REQUESTS):
        await app(dict(SCOPE), receive, send)
    return (time.perf_counter() - began) / REQUESTS * 1e6


async def middleware(folder: Path) -> Rows:
    """Measure a route bare, under all of ours (access log, metrics, alerts and all), and under the packages."""
    ours = with_route(create_app(settings(folder, "http://127.0.0.1:9/v1", cache=False)))
    apps = [with_route(FastAPI()), ours, rival()]
    with quiet():
        async with ours.router.lifespan_context(ours):
            for app in apps:
                await per_request(app)
            rounds = []
            for _ in range(ROUNDS):
                times = [await per_request(app) for app in apps]
                logging.disable(logging.INFO)
                times.append(await per_request(ours))
                logging.disable(logging.NOTSET)
                rounds.append(times)
    bare, all_on, packages, unlogged = (statistics.median(times) for times in zip(*rounds, strict=True))
    added, beside = all_on - bare, packages - bare
    return [
        ("a route under all middleware", f"{all_on:.0f} us", f"bare {bare:.0f} us", f"{all_on / bare:.2f}x (1.35x)"),
        (
            "... without the lines of its access log",
            f"{unlogged:.0f} us",
            f"bare {bare:.0f} us",
            f"{unlogged / bare:.2f}x (1.35x)",
        ),
        (
            "what middleware adds to a route",
            f"{added:.0f} us, {unlogged - bare:.0f} us without the access log",
            f"secure, asgi-correlation-id and slowapi {beside:.0f} us",
            f"{added / beside:.2f}, {(unlogged - bare) / beside:.2f} (0.15)",
        ),
    ]


# ---------------------------------------------------------------- cache


async def each(times: int, work: Run) -> float:
    """Return microseconds of processor time per call, all threads together."""
    began = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - began) / times * 1e6


def cache(url: str) -> Rows:
    """Measure answers from the model and from the cache, in one process without HTTP in front."""

    async def measure(folder: Path) -> Rows:
        app = create_app(settings(folder, url))
        numbers = itertools.count()

        async with app.router.lifespan_context(app):
            chat = app.state.chat

            async def ask(message: str) -> None:
                await chat.answer(CALLER, message, f"c{next(numbers)}", fresh=True)

            async def look_up() -> None:
                await chat._cached(CALLER, "What is 6 * 7?", "c", route, None)

            route = chat.admit("What is 6 * 7?", CALLER)[1]
            await ask("What is 6 * 7?")
            miss = await each(CALLS, lambda: ask(f"What is 6 * {next(numbers)}?"))
            await ask("What is 6 * 7?")
            hit = await each(CALLS, lambda: ask("What is 6 * 7?"))
            lookup = await each(CALLS, look_up)
        return [
            ("an answer from the cache, found", f"{lookup:.0f} us", f"a miss {miss:.0f} us", over(miss, lookup)),
            ("... and written to its conversation", f"{hit:.0f} us", f"a miss {miss:.0f} us", over(miss, hit)),
        ]

    with quiet():
        return timed(measure)


def over(dear: float, cheap: float) -> str:
    """Say how many times cheaper."""
    return f"{dear / cheap:.1f}x cheaper (10x)"


# ---------------------------------------------------------------- stores


@contextlib.asynccontextmanager
async def calls(config: Production) -> AsyncIterator[dict[str, Run]]:
    """Open the stores; yields what a request does with each."""

    async def work(_: Any) -> str:
        return "42"

    async with open_stores(config) as stores, stores.open_jobs(work) as jobs:
        numbers = itertools.count()
        saved = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

        async def save() -> None:
            await stores.saver.aput(saved, empty_checkpoint(), {}, {})  # type: ignore[arg-type]

        found: dict[str, Run] = {
            "count against the limit": lambda: stores.limits.hit(CALLER),
            "read a conversation": lambda: stores.saver.aget_tuple(saved),  # type: ignore[arg-type]
            "save a conversation": save,
            "note it in the list": lambda: stores.index.record(CALLER, f"c{next(numbers) % 100}"),
            "claim an alert": lambda: stores.claims.claim(f"a{next(numbers)}", 60),
            "queue a job": lambda: jobs.enqueue("hello", caller=CALLER, conversation_id=f"q{next(numbers)}"),
        }
        if stores.turn:
            found["take a turn"] = lambda: taken(stores)
        if answers := stores.answers:
            found["look for a shared answer"] = lambda: answers.find("What is 6 * 7?", "s", [0.1] * 256)
        yield found


async def taken(stores: Stores) -> None:
    """Take a turn in a conversation and leave it."""
    assert stores.turn
    async with stores.turn("t"):
        pass


def store_calls(url: str, redis_url: str, database_url: str) -> Rows:
    """Measure each call, embedded and shared."""

    async def measure(folder: Path) -> Rows:
        found: list[dict[str, float]] = []
        for more in ({}, {"redis_url": SecretStr(redis_url), "database_url": SecretStr(database_url)}):
            async with calls(settings(folder, url, **more)) as names:
                times = {}
                for name, call in names.items():
                    times[name] = statistics.median([await once(call) for _ in range(CALLS)])
                found.append(times)
        embedded, shared = found
        return [
            (
                name,
                f"embedded {embedded[name]:.0f} us" if name in embedded else "in the process",
                f"shared {shared[name]:.0f} us",
                f"{shared[name] / embedded[name]:.0f}x" if name in embedded else "",
            )
            for name in shared
        ]

    with quiet():
        return timed(measure)


async def once(call: Run) -> float:
    """Return microseconds of one call."""
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1e6
