"""What a request ID and a JSON line cost, beside asgi-correlation-id, python-json-logger and structlog.

The best of several runs that alternate in one process. Redaction is part of our line, and of nobody else's.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import structlog
from asgi_correlation_id import CorrelationIdMiddleware
from exercise_1_19_4_solution import JsonFormatter, RequestIdMiddleware
from pythonjsonlogger.json import JsonFormatter as PythonJsonLogger

VERSIONS = ("asgi-correlation-id", "python-json-logger", "structlog")
REQUESTS = 3_000
LINES = 1_000
ROUNDS = 9
EXTRA = {"gen_ai.request.model": "gpt-4o-mini", "gen_ai.usage.input_tokens": 12, "duration_ms": 12.4}
Rows = list[tuple[str, str, str, str]]


def run() -> Rows:
    """Measure the middleware and the line."""
    return [*asyncio.run(middleware()), *lines()]


async def middleware() -> Rows:
    """Compare what each middleware adds to a bare ASGI app."""
    headers = [(b"host", b"x"), (b"accept", b"*/*"), (b"user-agent", b"bench"), (b"x-api-key", b"key")]

    async def bare(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        pass

    apps: list[Any] = [bare, RequestIdMiddleware(bare), CorrelationIdMiddleware(bare)]
    taken: list[list[float]] = [[] for _ in apps]
    for _ in range(ROUNDS):
        for app, times in zip(apps, taken, strict=True):
            start = time.perf_counter()
            for _ in range(REQUESTS):
                await app({"type": "http", "headers": headers}, None, send)
            times.append((time.perf_counter() - start) / REQUESTS * 1e6)
    alone, ours, theirs = map(min, taken)
    ours, theirs = ours - alone, theirs - alone
    return [
        ("request ID, added to a request", f"{ours:.1f} us", f"asgi-correlation-id: {theirs:.1f} us",
         f"{ours / theirs:.2f} of it, at most 0.5"),
    ]  # fmt: skip


def lines() -> Rows:
    """Compare a whole line with file, line number and extra fields, without and with an exception."""
    try:
        raise ValueError("bad")
    except ValueError:
        error = sys.exc_info()
    rows: Rows = []
    for name, exc_info in (("one JSON line", None), ("the same with an exception", error)):
        theirs = PythonJsonLogger("%(asctime)s %(levelname)s %(name)s %(message)s %(filename)s %(lineno)d")
        work = [logged(JsonFormatter(), exc_info), logged(theirs, exc_info), with_structlog(exc_info)]
        taken: list[list[float]] = [[] for _ in work]
        for _ in range(ROUNDS):
            for piece, times in zip(work, taken, strict=True):
                start = time.perf_counter()
                for _ in range(LINES):
                    piece()
                times.append((time.perf_counter() - start) / LINES * 1e6)
        ours, json_logger, struct = map(min, taken)
        targets = (", at most 0.8", ", at most 1") if exc_info else ("", "")
        rows += [
            (name, f"{ours:.1f} us", f"python-json-logger: {json_logger:.1f} us",
             f"{ours / json_logger:.2f} of it{targets[0]}"),
            (name, f"{ours:.1f} us", f"structlog: {struct:.1f} us", f"{ours / struct:.2f} of it{targets[1]}"),
        ]  # fmt: skip
    return rows


def logged(formatter: logging.Formatter, exc_info: Any) -> Callable[[], None]:
    """Return a call that logs one line through the standard library."""
    log = logging.Logger("bench")
    handler = logging.StreamHandler(Nowhere())
    handler.setFormatter(formatter)
    log.addHandler(handler)
    return lambda: log.info("the model %s", "answered", extra=EXTRA, exc_info=exc_info)


def with_structlog(exc_info: Any) -> Callable[[], None]:
    """Return a call that logs one line through structlog."""
    place = structlog.processors.CallsiteParameter
    log = structlog.wrap_logger(
        structlog.WriteLogger(Nowhere()),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.CallsiteParameterAdder({place.FILENAME, place.LINENO}),
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    ).bind()
    extra: dict[str, Any] = EXTRA | ({"exc_info": exc_info} if exc_info else {})
    return lambda: log.info("the model answered", **extra)


class Nowhere(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        """Forget it."""
        return len(text)
