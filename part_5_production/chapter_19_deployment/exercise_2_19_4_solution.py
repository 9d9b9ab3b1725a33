"""Exercise 2 (19.4): show what the service does: rate, 95th percentile, errors, tokens.

The book asks `/metrics` for the requests per minute of the last 5 minutes, the 95th percentile of the response time,
the 5 most common errors and the tokens of each conversation. Notice:

* Nothing here grows with the traffic. A list of all requests is simple, and after a day it is the problem.
* "The 95th percentile" has nine definitions; this is numpy's default, exact, over the last 1,000 requests. Histograms
  cover all of them, but know it only to the width of a bucket.
* Failures count as well: whoever measures successes only gets faster while the service falls over.
* Routes are counted by template and kinds of errors up to a limit, or `/a1`, `/a2`, ... would each get a counter.
* One address, three readers: JSON, `Accept: text/plain` for Prometheus, and a page for a browser. The page holds no
  numbers; it asks for a key and fetches them, under a Content-Security-Policy that names its one script by hash.

Run it:    python exercise_2_19_4_solution.py             (--serve keeps it up: look at /metrics in a browser)
Check it:  make check EX=19.4.2                           (MINE=your_file.py checks yours)

Limit: one process, and it says so ("scope"). Counts of several workers can be added up, percentiles cannot.
"""

import base64
import contextlib
import dataclasses
import hashlib
import math
import re
import threading
import time
import uuid
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ModelError, Usage, ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, model_error_response, require_api_key, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["ConversationTokens", "Metrics", "MetricsMiddleware", "Snapshot", "percentile"]

MINUTES = 5
WINDOW = 1_000  # requests that the percentile looks back on: 8 kB, sorted in 0.1 ms
TOP_ERRORS = 5
MAX_KINDS = 100  # of errors, and of (method, route, status); further ones are counted together
MAX_CONVERSATIONS = 100  # of one caller; of older ones only the sum is kept
NOT_COUNTED = ("/metrics", "/health")  # looking must not change what is seen
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OTHER = "(other)"
PAGE = Path(__file__).with_name("exercise_2_19_4_dashboard.html")
TYPES = ("application/json", "text/plain", "text/html")
DEFINITION = f"Linear interpolation over the last {WINDOW:,} requests, failed ones included"


def percentile(ordered: list[float], percent: float) -> float | None:
    """Return a percentile of ascending values as numpy.percentile's default does; None of none.

    Definition 7 in Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996).
    """
    if not ordered:
        return None
    place = (len(ordered) - 1) * (percent / 100)
    below = math.floor(place)
    low, high, part = ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


@dataclass(frozen=True)
class ConversationTokens:
    """What one conversation used; None where the API counted nothing. No id: all the earlier ones together."""

    conversation_id: str | None
    requests: int
    input_tokens: int | None
    output_tokens: int | None
    total_tokens: int | None


@dataclass(frozen=True)
class Snapshot:
    """The metrics at one moment; minutes come oldest first, errors and conversations largest first."""

    requests_per_minute: list[int]
    p50_s: float | None
    p95_s: float | None
    max_s: float | None
    samples: int
    top_errors: list[tuple[str, int]]
    tokens: list[ConversationTokens]

    def as_json(self) -> dict[str, Any]:
        """Return what `/metrics` answers."""

        def ms(seconds: float | None) -> float | None:
            return None if seconds is None else round(seconds * 1000, 3)

        newest = len(self.requests_per_minute) - 1
        return {
            "scope": "process",
            "requests_per_minute": [
                {"minutes_ago": newest - index, "requests": count}
                for index, count in enumerate(self.requests_per_minute)
            ],
            "response_time": {
                "p95_ms": ms(self.p95_s),
                "p50_ms": ms(self.p50_s),
                "max_ms": ms(self.max_s),
                "samples": self.samples,
                "definition": DEFINITION,
            },
            "top_errors": [{"error": error, "count": count} for error, count in self.top_errors],
            "tokens_by_conversation": [dataclasses.asdict(tokens) for tokens in self.tokens],
        }


class _Counts(dict[Any, int]):
    """Counts up to `MAX_KINDS` kinds, and all others as one."""

    def add(self, kind: Any, other: Any) -> None:
        kind = kind if kind in self or len(self) < MAX_KINDS else other
        self[kind] = self.get(kind, 0) + 1


class Metrics:
    """Counts requests and tokens in constant memory, at a constant cost each; safe to call from threads.

    Requests are counted by the second, in a ring of 300; minutes are the last 60 seconds and those before them, not the
    clock's. Callers must be verified ones: there is a table for each.
    """

    def __init__(self, *, window: int = WINDOW, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._seconds = array("Q", bytes(8 * 60 * MINUTES))
        self._second = int(clock())
        self._durations = array("d", bytes(8 * window))
        self._count, self._sum_s = 0, 0.0
        self._requests, self._errors = _Counts(), _Counts()
        self._tokens: dict[str, OrderedDict[str | None, list[int]]] = {}
        self._used = [0, 0]

    def record(self, method: str, route: str, status: int, duration_s: float, error: str | None = None) -> None:
        """Count one request; `error` names its kind if it was one."""
        with self._lock:
            self._turn()
            self._seconds[self._second % len(self._seconds)] += 1
            self._durations[self._count % len(self._durations)] = duration_s
            self._count += 1
            self._sum_s += duration_s
            self._requests.add((method, route, status), (OTHER, OTHER, 0))
            if error is not None:
                self._errors.add(error, OTHER)

    def record_tokens(self, caller: str, conversation_id: str, usage: tuple[int, int] | None) -> None:
        """Count the (input, output) tokens of one answer, None if the API gave no count."""
        with self._lock:
            table = self._tokens.setdefault(caller, OrderedDict())
            if conversation_id not in table and len(table) >= MAX_CONVERSATIONS:
                oldest = next(known for known in table if known is not None)
                _add(table.setdefault(None, [0, 0, 0, 0]), table.pop(oldest))
            counted = (1, 1, *usage) if usage else (1, 0, 0, 0)
            _add(table.setdefault(conversation_id, [0, 0, 0, 0]), counted)
            table.move_to_end(conversation_id)
            _add(self._used, counted[2:])

    def snapshot(self, caller: str | None = None) -> Snapshot:
        """Return the numbers, with the tokens of this caller's conversations."""
        with self._lock:
            self._turn()
            length = len(self._seconds)
            last = [self._seconds[(self._second - ago) % length] for ago in reversed(range(length))]
            samples = min(self._count, len(self._durations))
            durations = self._durations[:samples].tolist()
            errors = list(self._errors.items())
            table = {known: tuple(row) for known, row in self._tokens.get(caller or "", {}).items()}
        durations.sort()
        tokens = [
            ConversationTokens(known, requests, *((used_in, used_out, used_in + used_out) if counted else (None,) * 3))
            for known, (requests, counted, used_in, used_out) in table.items()
        ]
        return Snapshot(
            requests_per_minute=[sum(last[start : start + 60]) for start in range(0, length, 60)],
            p50_s=percentile(durations, 50),
            p95_s=percentile(durations, 95),
            max_s=durations[-1] if durations else None,
            samples=samples,
            top_errors=sorted(errors, key=lambda item: (-item[1], item[0]))[:TOP_ERRORS],
            tokens=sorted(tokens, key=lambda row: -(row.total_tokens or 0)),
        )

    def prometheus(self) -> str:
        """Return the numbers in Prometheus' text format, version 0.0.4; conversations would be labels without end."""
        p95 = self.snapshot().p95_s
        with self._lock:
            requests, total_s, count = sorted(self._requests.items()), self._sum_s, self._count
            errors, (used_in, used_out) = sorted(self._errors.items()), self._used
        lines = ["# TYPE http_requests_total counter"]
        for (method, route, status), number in requests:
            labels = f'method="{method}",route="{_escaped(route)}",status="{status}"'
            lines.append(f"http_requests_total{{{labels}}} {number}")
        lines.append("# TYPE http_errors_total counter")
        lines += [f'http_errors_total{{error="{_escaped(error)}"}} {number}' for error, number in errors]
        lines.append("# TYPE http_request_duration_seconds summary")
        if p95 is not None:
            lines.append(f'http_request_duration_seconds{{quantile="0.95"}} {p95!r}')
        lines += [f"http_request_duration_seconds_sum {total_s!r}", f"http_request_duration_seconds_count {count}"]
        lines.append("# TYPE gen_ai_tokens_total counter")
        lines += [f'gen_ai_tokens_total{{type="input"}} {used_in}', f'gen_ai_tokens_total{{type="output"}} {used_out}']
        return "\n".join(lines) + "\n"

    def _turn(self) -> None:
        """Clear the seconds since the last look, at most once around."""
        now, length = int(self._clock()), len(self._seconds)
        for second in range(max(self._second + 1, now - length + 1), now + 1):
            self._seconds[second % length] = 0
        self._second = now


def _add(to: list[int], amounts: Any) -> None:
    to[:] = [a + b for a, b in zip(to, amounts, strict=True)]


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class MetricsMiddleware:
    """Records each request from its first to its last byte, under the template of its route."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self.app, self._metrics, self._clock = app, metrics, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in NOT_COUNTED:
            await self.app(scope, receive, send)
            return
        started, ended, status, name = self._clock(), None, 499, None

        async def watch(message: Message) -> None:
            nonlocal status, ended
            status = message.get("status", status)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                ended = self._clock()
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            status, name = 500, type(error).__name__
            raise
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER
            route = getattr(scope.get("route"), "path", "(no route)")
            name = name or scope.get("error") or phrase(status)
            kind = f"{status} {name} at {method} {route}" if status >= 400 else None
            self._metrics.record(method, route, status, (ended or self._clock()) - started, kind)


def phrase(status: int) -> str:
    """Return a status's name."""
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Client Left" if status == 499 else "Unknown"


def best_type(accept: str) -> str:
    """Return which of `TYPES` an Accept header likes best (RFC 9110, section 12.5.1); JSON if it has no favourite."""
    liked = dict.fromkeys(TYPES, 0.0)
    rank = dict.fromkeys(TYPES, -1)
    for part in accept.split(","):
        kind, *parameters = part.lower().replace(" ", "").split(";")
        weight = next((p[2:] for p in parameters if re.fullmatch(r"q=[01](\.\d*)?", p)), "1")
        for offered in TYPES:
            ranges = ("*/*", offered.partition("/")[0] + "/*", offered)
            if kind in ranges and ranges.index(kind) > rank[offered]:
                liked[offered], rank[offered] = float(weight), ranges.index(kind)
    return max(TYPES, key=lambda offered: liked[offered])


def strict_policy(page: str) -> str:
    """Return a Content-Security-Policy under which the page's own style and script run, and nothing else."""

    def source(tag: str) -> str:
        text = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    own = f"script-src {source('script')}; style-src {source('style')}; connect-src 'self'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, metrics: Metrics | None = None
) -> FastAPI:
    """Wire the metrics around the chat, and show them at `/metrics`."""
    metrics = metrics or Metrics()
    page = PAGE.read_text(encoding="utf-8")
    headers = {"Vary": "Accept", "Cache-Control": "no-store"}
    page_headers = headers | {"Content-Security-Policy": strict_policy(page), "X-Content-Type-Options": "nosniff"}
    app = base_app(settings, client)
    app.add_middleware(MetricsMiddleware, metrics=metrics)

    @app.exception_handler(ModelError)
    async def name_the_error(request: Request, error: ModelError) -> JSONResponse:
        request.scope["error"] = error.code
        return await model_error_response(request, error)

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        metrics.record_tokens(caller, conversation_id, counted(reply.usage))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.get("/metrics", response_model=None)
    async def show(
        request: Request, accept: Annotated[str, Header()] = "*/*", x_api_key: Annotated[str | None, Header()] = None
    ) -> Response:
        kind = best_type(accept)
        if kind == "text/html":
            return HTMLResponse(page, headers=page_headers)
        caller = await require_api_key(request, x_api_key)
        if kind == "text/plain":
            text = "text/plain; version=0.0.4; charset=utf-8"
            return PlainTextResponse(metrics.prometheus(), headers=headers, media_type=text)
        return JSONResponse(metrics.snapshot(caller).as_json(), headers=headers)

    return app


def counted(usage: Usage | None) -> tuple[int, int] | None:
    """Return (input, output) tokens, None if the API did not count."""
    return (usage.input_tokens, usage.output_tokens) if usage else None


def main(argv: list[str] | None = None) -> int:
    """Chat a little, make two mistakes, and look at the metrics as a person and as Prometheus."""
    hello = {"message": "What is 6 * 7?", "conversation_id": "sums"}
    steps = [
        demo.Send("POST", "/v1/chat", hello, note="three messages of a conversation", times=3),
        demo.Send("POST", "/v1/chat", {"message": ""}, note="an empty message", times=2),
        demo.Send("GET", "/nowhere", note="a page that is not there"),
        demo.Send("GET", "/metrics", note="the metrics"),
        demo.Send("GET", "/metrics", key=1, note="another caller sees no foreign conversation"),
        demo.Send("GET", "/metrics", headers={"Accept": "text/plain"}, note="for Prometheus"),
    ]
    return demo.run(__doc__, create_app, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
