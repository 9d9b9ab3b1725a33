"""What eight headers add to a request, beside the package `secure` and BaseHTTPMiddleware, on four kinds of answer.

Each row is the median of several rounds of the same in-process requests with the middleware, less without any;
the rounds of all are interleaved. The app is a bare ASGI function, so that the difference is not lost in noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import Any

from exercise_3_19_7_solution import SecurityHeaders
from secure import Secure
from secure.middleware import SecureASGIMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import Message, Receive, Scope, Send

VERSIONS = ("starlette", "secure")
ROUNDS, REQUESTS = 15, 1_000
STATUSES = (200, 413, 429, 503)
SCOPE = {"type": "http", "scheme": "https", "method": "GET", "path": "/", "headers": [], "query_string": b""}


def answering(status: int) -> Any:
    """Return an app that answers with a status."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})

    return app


async def crashing(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise what nobody handles."""
    raise RuntimeError


class Classic(BaseHTTPMiddleware):
    """The same headers, the way most tutorials set them."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        for name, value in HEADERS:
            response.headers[name] = value
        return response


HEADERS = [(name.decode(), value.decode()) for name, value in SecurityHeaders(crashing)._https]


async def receive() -> Message:
    """Return an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Throw the answer away."""


async def one_round(app: Any) -> float:
    """Return microseconds per request."""
    start = time.perf_counter()
    for _ in range(REQUESTS):
        with contextlib.suppress(RuntimeError):  # the error handler raises it again for the server's log
            await app(SCOPE, receive, send)
    return (time.perf_counter() - start) / REQUESTS * 1e6


async def added(bare: Any) -> tuple[float, float, float]:
    """Return what ours, secure and BaseHTTPMiddleware add to a bare app."""
    apps = [
        bare,
        SecurityHeaders(bare),
        SecureASGIMiddleware(bare, secure=Secure.with_default_headers()),
        Classic(bare),
    ]
    rounds = []
    for _ in range(ROUNDS):
        rounds.append([await one_round(app) for app in apps])
    base, *others = (statistics.median(column) for column in zip(*rounds, strict=True))
    ours, secure, classic = (max(other - base, 0.01) for other in others)
    return ours, secure, classic


def run() -> list[tuple[str, str, str, str]]:
    """Measure and return the rows."""
    rows = []
    cases = [(f"{status}", answering(status)) for status in STATUSES]
    cases.append(("an unhandled 500", ServerErrorMiddleware(crashing)))
    for name, bare in cases:
        ours, secure, classic = asyncio.run(added(bare))
        beside = f"secure {secure:.1f} us, BaseHTTPMiddleware {classic:.0f} us"
        rows.append((f"headers on {name}", f"{ours:.2f} us", beside, f"{ours / secure:.2f} of secure, at most 0.25"))
    return rows
