"""Exercise 1 (19.4): write JSON logs in which every line of a request carries its ID.

The book asks for JSON logs, a request ID in all lines of a request, the first 100 characters of the message, the model
and its tokens. Notice:

* The ID lives in a context variable: tasks, background tasks and `asyncio.to_thread` inherit it.
* The formatter runs where the line is logged (there the ID is known); a thread of its own does the slow part, writing.
* An ID from outside is taken only if it is short and plain, or it could forge lines and flood the log.
* Secrets are removed from the whole message before it is cut: half a key is still a leak.
* 500s get their ID too. What `add_middleware` adds never sees Starlette's own 500, so the log middleware sends it.

structlog adds processors and bound loggers, asgi-correlation-id the ID for Celery and Sentry; the idea is this one.

Run it:    python exercise_1_19_4_solution.py             (--serve keeps it up; LOG_MESSAGES=0 leaves messages out)
Check it:  make check EX=19.4.1                           (MINE=your_file.py checks yours)

Limit: a bare `threading.Thread` starts without the ID (hand it `contextvars.copy_context().run`), and uvicorn's lines
from before the app starts and after it has stopped are uvicorn's own. Redaction knows forms, not meanings.
"""

import contextlib
import itertools
import json
import logging
import math
import os
import queue
import re
import threading
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from fastapi import FastAPI, Request
from fastapi.exception_handlers import http_exception_handler, request_validation_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ModelError, ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, model_error_response, unless_gone
from shared.config import FALSE, Settings, environment

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["JsonFormatter", "RequestIdMiddleware", "RequestLogMiddleware", "json_logging", "preview", "redact"]

PREVIEW_CHARS = 100
VALUE_CHARS = 8_000  # of one field: container runtimes split lines at 16 KB
VALUE_ITEMS = 50  # of one list or mapping
QUEUED_LINES = 10_000  # waiting to be written; what comes on top is dropped and counted

PLAIN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, section 3.2: all-zero IDs and version ff are invalid, and only version 00 has to end here.
TRACEPARENT = re.compile(rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

# OpenAI and its like, Stripe, AWS, Google, GitHub, GitLab, Hugging Face, Slack, Groq, xAI, Perplexity, Replicate, JWT
KEYS = r"sk-|sk_|rk_|pk_|AKIA|ASIA|AIza|ya29\.|gh[oprsu]_|github_pat_|glpat-|hf_|xox[a-z]-|gsk_|xai-|pplx-|r8_|eyJ"
NAMES = r"(?:api[_-]?key|token|secret|password|passwd|authorization)[\"']?\s{0,3}[=:]\s{0,3}"
SECRETS = (
    (re.compile(rf"(?<![A-Za-z0-9])(?:{KEYS})[\w.-]{{8,}}"), "[key]"),
    (re.compile(r"\b(bearer)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 [token]"),
    (re.compile(rf"({NAMES})(?:(?:bearer|basic)\s+)?[\"']?[^\s\"'&,;]+", re.IGNORECASE), r"\1[secret]"),
    (re.compile(r"://[^/\s@]+@"), "://[user]@"),
    (re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), "[email]"),
    (re.compile(r"(?<![\w.])\d(?:[ -]?\d){12,}(?!\w)"), "[number]"),  # a card has 13 to 19 digits
)
# Most texts have none of these, and are done in 1 us: a search for plain words is quick, one that ignores case is not.
SIGNS = re.compile(rf"@|{KEYS}")
WORDS = re.compile("bearer|api_key|api-key|apikey|token|secret|passw|authorization")
DIGITS = re.compile(r"\d[ -]?\d[ -]?\d(?:[ -]?\d){10}")
NOT_EXTRA = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"))
# RequestLogMiddleware says the same and more; URLs may carry passwords. openai 2 is built on httpx, 3 on httpx2.
LEFT_OUT = ("uvicorn.access", "httpx", "httpx2")

log = logging.getLogger(__name__)
_encode = json.JSONEncoder(check_circular=False).encode  # _plain has cut every circle
_request: ContextVar[Mapping[str, str]] = ContextVar("request", default=MappingProxyType({}))


def redact(text: str) -> str:
    """Replace what looks like a provider's key, a token, a password, an e-mail address or a card's number."""
    if not (SIGNS.search(text) or WORDS.search(text.lower()) or DIGITS.search(text)):
        return text
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


def preview(message: str, chars: int = PREVIEW_CHARS) -> str:
    """Return the beginning of a message, fit for a log: secrets removed first, then one line, then cut."""
    return " ".join(redact(message).split())[:chars]


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record: ASCII, one line, nothing that a strict parser refuses, whatever is logged.

    `extra` becomes fields of the object; a value without a JSON form becomes its repr. Secrets are redacted in every
    text, long texts and lists are cut. A stack trace comes without source lines: they cost 30 us and are in Git.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(_first(record.getMessage, lambda: repr(record.msg))[:VALUE_CHARS]),
            "file": record.filename,
            "line": record.lineno,
            **_request.get(),
        }
        if record.exc_info and (error := record.exc_info[1]):
            fields["exception.type"] = type(error).__qualname__
            fields["exception.message"] = _plain(_first(lambda: str(error)))
            fields["exception.stacktrace"] = redact(_trace(error))[-VALUE_CHARS:]
        for name, value in vars(record).items():
            if name not in NOT_EXTRA:
                fields.setdefault(name, _plain(value))
        return _encode(fields)


def _first(*reads: Callable[[], str]) -> str:
    for read in reads:
        with contextlib.suppress(Exception):  # what is logged may fail in any way when it is looked at
            return read()
    return "(unreadable)"


def _plain(value: Any, depth: int = 4) -> Any:
    """Return a value that every JSON parser reads."""
    match value:
        case str():
            return redact(value[:VALUE_CHARS])
        case None | bool():
            return value
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case Mapping() if depth:
            items = itertools.islice(value.items(), VALUE_ITEMS)
            return {str(_plain(name, 0)): _plain(item, depth - 1) for name, item in items}
        case list() | tuple() | set() | frozenset() if depth:
            return [_plain(item, depth - 1) for item in itertools.islice(value, VALUE_ITEMS)]
    return redact(_first(lambda: repr(value))[:VALUE_CHARS])


def _trace(error: BaseException | None) -> str:
    """Return an exception and what caused it, cause first, as Python prints them but without source lines."""
    parts: list[str] = []
    while error and len(parts) < 5:
        frames = itertools.islice(traceback.walk_tb(error.__traceback__), 50)
        lines = [f'  File "{f.f_code.co_filename}", line {line}, in {f.f_code.co_name}' for f, line in frames]
        said = _first(lambda error=error: str(error))[:1000]  # type: ignore[misc]  # a lambda's default
        parts.append("\n".join(("Traceback (most recent call last):", *lines, f"{type(error).__qualname__}: {said}")))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(parts))


class RequestIdMiddleware:
    """Gives every request an ID: the caller's own if it is plain, else the trace ID of `traceparent`, else a new one.

    The ID stands in `X-Request-ID` of the response and, with the trace ID, in every line logged for the request.
    """

    def __init__(self, app: ASGIApp, *, new_id: Callable[[], str] = lambda: os.urandom(16).hex()) -> None:
        self.app, self._new_id = app, new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        fields = self._identify(scope["headers"])
        header = (b"x-request-id", fields["request_id"].encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        token = _request.set(fields)
        await self.app(scope, receive, send_with_id)
        _request.reset(token)  # but not after an exception: the server logs that next, in this context

    def _identify(self, headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str]:
        given, parent = b"", b""
        for name, value in headers:
            if name == b"x-request-id":
                given = value
            elif name == b"traceparent":
                parent = value
        trace = TRACEPARENT.fullmatch(parent) if parent else None
        trace_id = trace[1].decode() if trace else None
        request_id = given.decode() if PLAIN_ID.fullmatch(given) else trace_id or self._new_id()
        return {"request_id": request_id, "trace_id": trace_id} if trace_id else {"request_id": request_id}


class RequestLogMiddleware:
    """Logs each request once, when it is over: method, path without query, status, duration. Nothing else of it.

    An exception nobody handled is logged with its fields and answered with a 500; where the response had begun, it goes
    on to the server, which breaks the connection off. Status None: the client left before there was one.
    """

    def __init__(self, app: ASGIApp, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, ended = self._clock(), None
        status: int | None = None

        async def watch(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                ended = self._clock()  # background tasks come after it
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception:
            log.exception("the request failed")
            if status is not None:
                raise
            response = JSONResponse({"detail": "Internal Server Error", "request_id": request_id()}, 500)
            await response(scope, receive, watch)
        finally:
            duration_ms = round(((ended or self._clock()) - started) * 1000, 3)
            log.info(
                "the request is over",
                extra={
                    "http.request.method": scope["method"],
                    "url.path": scope["path"][:200],
                    "http.response.status_code": status,
                    "duration_ms": duration_ms,
                },
            )


def request_id() -> str | None:
    """Return the ID of the request on whose behalf this runs; None outside of one."""
    return _request.get().get("request_id")


class LineQueue(QueueHandler):
    """Never waits: when the writer is `capacity` lines behind, lines are dropped, and the next one says how many."""

    def __init__(self, capacity: int = QUEUED_LINES) -> None:
        self.lines: queue.SimpleQueue[Any] = queue.SimpleQueue()
        super().__init__(self.lines)
        self.setFormatter(JsonFormatter())
        self._capacity, self._lost = capacity, 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a finished line to the writer; the caller holds the handler's lock."""
        if self.lines.qsize() >= self._capacity:
            self._lost += 1
            return
        if self._lost:
            text = f"{self._lost} lines were dropped: they came faster than they could be written"
            self.lines.put(self.prepare(logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, None)))
            self._lost = 0
        self.lines.put(record)


@contextlib.contextmanager
def json_logging(stream: TextIO | None = None, *, level: int = logging.INFO) -> Iterator[None]:
    """Let whatever this process logs, warns of or loses a thread to come out as JSON, on stderr; undone at the end."""
    handler = LineQueue()
    writer = QueueListener(handler.lines, logging.StreamHandler(stream))
    root, hook = logging.getLogger(), threading.excepthook
    passed_on = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error")]
    left_out = [logging.getLogger(name) for name in LEFT_OUT]
    before = [(logger, logger.handlers[:], logger.propagate) for logger in (root, *passed_on, *left_out)]
    level_before = root.level

    def log_death(args: threading.ExceptHookArgs) -> None:
        log.critical("a thread died", exc_info=args.exc_value)

    writer.start()
    for logger, _, _ in before:
        logger.handlers[:], logger.propagate = [], logger not in left_out
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    threading.excepthook = log_death
    try:
        yield
    finally:
        threading.excepthook = hook
        logging.captureWarnings(False)
        root.setLevel(level_before)
        for logger, handlers, propagate in before:
            logger.handlers[:], logger.propagate = handlers, propagate
        writer.stop()


def create_app(
    settings: Settings | None = None,
    *,
    client: "AsyncOpenAI | None" = None,
    log_messages: bool | None = None,
    stream: TextIO | None = None,
) -> FastAPI:
    """Wire the logs around the chat. `log_messages` defaults to the variable LOG_MESSAGES, and that to yes."""
    settings = settings or Settings.load()
    if log_messages is None:
        log_messages = environment().get("LOG_MESSAGES", "1").strip().lower() not in FALSE

    @contextlib.asynccontextmanager
    async def logs(app: FastAPI) -> AsyncIterator[None]:
        with json_logging(stream):
            yield

    app = base_app(settings, client, lifespan=logs)
    app.add_middleware(RequestLogMiddleware)
    app.add_middleware(RequestIdMiddleware)  # the last one added is the first to see a request
    for kind, handler in (
        (HTTPException, http_exception_handler),
        (RequestValidationError, request_validation_exception_handler),
        (ModelError, model_error_response),
    ):
        app.add_exception_handler(kind, with_request_id(handler))

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id, started = body.conversation_id or uuid.uuid4().hex, time.perf_counter()
        about: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.conversation.id": conversation_id,
            "gen_ai.request.model": settings.model,
        }
        said = {"message_preview": preview(body.message)} if log_messages else {}
        log.info("the model is asked", extra=about | said)
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        about |= {
            "gen_ai.response.model": reply.model,
            "gen_ai.response.finish_reasons": [reply.finish_reason] if reply.finish_reason else None,
            "gen_ai.usage.input_tokens": reply.usage.input_tokens if reply.usage else None,
            "gen_ai.usage.output_tokens": reply.usage.output_tokens if reply.usage else None,
            "duration_ms": round((time.perf_counter() - started) * 1000, 3),
        }
        log.info("the model answered", extra=about)
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    return app


def with_request_id(handler: Callable[[Any, Any], Any]) -> Callable[[Request, Exception], Any]:
    """Make an error handler that adds the request's ID to the JSON body of another one."""

    async def handle(request: Request, error: Exception) -> Response:
        response: Response = await handler(request, error)
        if not response.body:
            return response
        body = json.loads(bytes(response.body)) | {"request_id": request_id()}
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return JSONResponse(body, response.status_code, headers)

    return handle


def main(argv: list[str] | None = None) -> int:
    """Send a message with a secret in it, a broken one and one with an ID of its own; the log comes on stderr."""
    secret = {"message": "My key is sk-proj-0123456789abcdef, my mail is ada@example.org.\nWhat is 6 * 7?"}
    mine, show = {"X-Request-ID": "mine-1"}, ("X-Request-ID",)
    steps = [
        demo.Send("POST", "/v1/chat", secret, note="two lines about the model, one about the request", show=show),
        demo.Send("POST", "/v1/chat", {"message": ""}, note="an error carries the ID too", show=show),
        demo.Send("GET", "/nowhere", headers=mine, note="an ID from outside", show=show),
    ]
    return demo.run(__doc__, create_app, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
