"""Exercise 3 (19.5): stop without losing a request.

The book asks the service to stop taking new requests, to wait for those in progress (with a timeout), to clean up, and
to exit cleanly. Notice:

* Waiting in the lifespan's shutdown is too late: by then uvicorn has closed its door and waited already. So the signal
  comes to us first; we drain while the door is still open, and hand the signal on to uvicorn afterwards.
* Who comes while we drain gets an honest 503 with Retry-After and `Connection: close`; readiness says 503, so that the
  load balancer looks elsewhere; liveness says 200, so that nobody kills what is busy finishing.
* A request counts until its last byte, also of a stream. What is still there at the timeout is cancelled, and told so.
* All of it must fit into the time the platform gives before SIGKILL. A budget that does not fit is refused at start-up.
* uvicorn raises the signal again when it is done: exit status 143 (or -15) after SIGTERM is a clean exit.

Run it:    python exercise_3_19_5_solution.py             (--serve keeps it up; then press Ctrl-C while it answers)
Check it:  make check EX=19.5.3                           (MINE=your_file.py checks yours)

Limit: a request that reaches the machine's accept queue after the door has closed gets no answer: set `notice_s` to the
time that your load balancer takes to look elsewhere. A thread cannot be cancelled: it ends with the process.
"""

import asyncio
import contextlib
import functools
import json
import logging
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ModelError, ask, stream
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Budget", "Drain", "Gate", "GracefulShutdown", "ShuttingDown", "StopSignals"]

ALWAYS_OPEN = frozenset(("/health", "/ready"))
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last one is Windows' Ctrl-Break

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """How the platform's grace (seconds from SIGTERM to SIGKILL) is spent; raises ValueError when it does not suffice.

    `notice_s`: go on refusing politely, so that the load balancer notices. `timeout_s`: let requests finish.
    `cleanup_s`: cancel what is left, close clients, flush logs. Kubernetes gives 30 s, Docker and Cloud Run 10 s.
    """

    notice_s: float = 0.0
    timeout_s: float = 20.0
    cleanup_s: float = 5.0
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        if self.notice_s < 0 or self.timeout_s < 0 or self.cleanup_s <= 0:
            raise ValueError("notice_s and timeout_s must not be negative, and cleanup_s must be positive")
        if self.needed_s >= self.grace_s:
            parts = f"notice_s {self.notice_s:g} + timeout_s {self.timeout_s:g} + cleanup_s {self.cleanup_s:g}"
            raise ValueError(
                f"stopping takes up to {self.needed_s:g} s ({parts}), and the platform kills after {self.grace_s:g} s: "
                "lower timeout_s, or raise the platform's grace and grace_s"
            )

    @property
    def needed_s(self) -> float:
        """Seconds from the signal to the end, at most."""
        return self.notice_s + self.timeout_s + self.cleanup_s


@dataclass(frozen=True)
class Drain:
    """How the waiting ended: whether all requests were finished, how many were left, how long it took."""

    finished: bool
    left: int
    took_s: float


class ShuttingDown(RuntimeError):
    """No new requests are taken; `retry_after_s` is when another process should be there."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the server is shutting down; try again in {retry_after_s} s")


class GracefulShutdown:
    """Counts requests, refuses new ones once a shutdown is requested, and waits for the others.

    For one event loop: nothing awaits between looking and counting, so there is no lock.
    """

    def __init__(self, *, retry_after_s: int = 5, clock: Callable[[], float] = time.monotonic) -> None:
        self.shutdown_requested = False
        self.active_requests = 0
        self.retry_after_s = retry_after_s
        self._clock = clock
        self._cancelled: dict[asyncio.Task[Any] | None, bool] = {}  # the tasks of the requests, and whether by us
        self._shutdown_event = asyncio.Event()
        self._idle: asyncio.Event | None = None  # made when somebody waits

    async def request_started(self) -> None:
        """Count a request and the task that runs it; raises ShuttingDown once a shutdown is requested."""
        self.count_in(asyncio.current_task())

    async def request_finished(self) -> None:
        """Count a request out, in the task that has counted it in."""
        self.count_out(asyncio.current_task())

    def count_in(self, task: "asyncio.Task[Any] | None") -> None:
        """Do what `request_started` does: nothing in it has to wait, and the gate spares every request the await."""
        if self.shutdown_requested:
            raise ShuttingDown(self.retry_after_s)
        self.active_requests += 1
        self._cancelled[task] = False

    def count_out(self, task: "asyncio.Task[Any] | None") -> None:
        """Do what `request_finished` does."""
        self.active_requests -= 1
        self._cancelled.pop(task, None)
        if self._idle is not None and self.active_requests == 0:
            self._idle.set()

    def request_shutdown(self) -> None:
        """Take no new requests from now on."""
        self.shutdown_requested = True
        self._shutdown_event.set()

    async def wait_for_shutdown(self) -> None:
        """Wait until a shutdown is requested: for background work that has to end with the service."""
        await self._shutdown_event.wait()

    async def wait_for_completion(self, timeout: float = 30.0) -> Drain:  # noqa: ASYNC109  (the chapter's name)
        """Wait until no request is left, for `timeout` seconds at most."""
        began = self._clock()
        if self.active_requests:
            if self._idle is None or self._idle.is_set():
                self._idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()
        return Drain(self.active_requests == 0, self.active_requests, self._clock() - began)

    def cancel_remaining(self) -> None:
        """Cancel the requests that are left, each once."""
        for task, cancelled in self._cancelled.items():
            if task and not cancelled:
                self._cancelled[task] = True
                task.cancel()

    def cancelled(self, task: "asyncio.Task[Any] | None") -> bool:
        """Tell whether a request's cancellation is ours."""
        return self._cancelled.get(task, False)


class Gate:
    """Pure ASGI: lets requests in while the service is up and counts each until its last byte has been handed over.

    While it drains, everything but `always_open` gets a 503, and every answer tells the client to let the connection
    go. A request that is cancelled at the timeout gets a 503 as well. If its answer had begun, a stream of events ends
    with an event "error"; for anything else the connection is cut, so that nobody takes a part for the whole.
    """

    def __init__(self, app: ASGIApp, *, shutdown: GracefulShutdown, always_open: frozenset[str] = ALWAYS_OPEN) -> None:
        self.app, self.shutdown, self.always_open = app, shutdown, always_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self.always_open:
            await self.app(scope, receive, send)
            return
        shutdown, task = self.shutdown, asyncio.current_task()
        try:
            shutdown.count_in(task)
        except ShuttingDown as error:
            await _refuse(send, error)
            return
        start: Message | None = None
        last: Message = {}

        def send_and_let_go(message: Message) -> Awaitable[None]:
            nonlocal start, last
            last = message
            if start is None and message["type"] == "http.response.start":
                start = message
                if shutdown.shutdown_requested:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            return send(message)  # what there is to await is the server's

        try:
            await self.app(scope, receive, send_and_let_go)
        except asyncio.CancelledError:
            if not shutdown.cancelled(task):
                raise
            if start is None:
                await _refuse(send, ShuttingDown(shutdown.retry_after_s))
            elif (last is start or last.get("more_body")) and _is_event_stream(start):
                await send({"type": "http.response.body", "body": b'event: error\ndata: {"code": "shutting_down"}\n\n'})
        finally:
            shutdown.count_out(task)


def _is_event_stream(start: Message) -> bool:
    return any(value.startswith(b"text/event-stream") for _, value in start.get("headers", ()))


async def _refuse(send: Send, error: ShuttingDown) -> None:
    body = json.dumps({"detail": str(error), "code": "shutting_down"}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(error.retry_after_s).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class StopSignals:
    """Stands before the server's own signal handlers: drains first, then hands the signal on.

    A second signal stops the waiting (in a worker of `--workers` the third: Ctrl-C reaches it directly, and then again
    through its parent). When the time for cleaning up is over as well, `kill` ends the process. Works with any server
    that installs its handlers with `signal.signal` before the lifespan starts, as uvicorn does
    (`loop.add_signal_handler` would take the signal away from it for good, and Windows has no such thing).
    """

    def __init__(self, shutdown: GracefulShutdown, budget: Budget, *, kill: Callable[[int], Any] = os._exit) -> None:
        self._shutdown, self._budget, self._kill = shutdown, budget, kill
        self._servers: dict[int, Any] = {}
        self._echoes = 0 if multiprocessing.parent_process() is None else 1
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None

    def __enter__(self) -> "StopSignals":
        self._loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():  # Python hears signals nowhere else
            for name in STOP_SIGNALS:
                if number := getattr(signal, name, None):
                    self._servers[number] = signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, server in self._servers.items():
            signal.signal(number, server)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self.stop, number)  # a signal comes at any moment, also inside the loop

    def stop(self, number: int) -> None:
        """Begin to stop because of this signal; a second one cuts the waiting short."""
        if self._draining is None:
            self._shutdown.request_shutdown()
            self._draining = asyncio.create_task(self._drain(number))
        elif self._echoes:
            self._echoes -= 1
        else:
            log.warning("second signal: stopping now")
            self._hurry.set()

    async def _drain(self, number: int) -> None:
        log.info("%s: %d requests in progress", signal.Signals(number).name, self._shutdown.active_requests)
        waiting = asyncio.create_task(self._wait())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((waiting, hurry), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        hurry.cancel()
        deadline = threading.Timer(self._budget.cleanup_s, self._kill, (1,))
        deadline.daemon = True
        deadline.start()
        if self._shutdown.active_requests:
            log.warning("cancelling %d requests", self._shutdown.active_requests)
            self._shutdown.cancel_remaining()
            await self._shutdown.wait_for_completion(self._budget.cleanup_s / 2)
        self._hand_on(number)

    async def _wait(self) -> None:
        await asyncio.sleep(self._budget.notice_s)
        await self._shutdown.wait_for_completion(self._budget.timeout_s)

    def _hand_on(self, number: int) -> None:
        server = self._servers.get(number)
        if callable(server):
            server(number, None)
        else:  # nobody had a handler: do what the signal does by itself
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def flush_logs() -> None:
    """Write out what log handlers still hold: a process that ends by a signal runs no exit handlers."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    for handler in {handler for logger in loggers for handler in getattr(logger, "handlers", ())}:
        handler.flush()


def create_app(
    settings: Settings | None = None,
    *,
    client: "AsyncOpenAI | None" = None,
    budget: Budget | None = None,
    shutdown: GracefulShutdown | None = None,
) -> FastAPI:
    """Wire gate, signals and clean-up around the chat; `/health` is liveness, `/ready` is readiness."""
    budget, shutdown = budget or Budget(), shutdown or GracefulShutdown()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            with StopSignals(shutdown, budget):
                yield
        finally:
            flush_logs()  # HTTP clients are closed by base_app, around this

    app = base_app(settings, client, lifespan=lifespan)
    app.add_middleware(Gate, shutdown=shutdown)

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        if shutdown.shutdown_requested:
            raise HTTPException(503, "shutting down", {"Retry-After": str(shutdown.retry_after_s)})
        return {"status": "ready"}

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.post("/v1/chat/stream")
    async def chat_stream(request: Request, body: ChatRequest, caller: Caller) -> StreamingResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex

        async def events() -> AsyncIterator[str]:
            try:
                async for piece in stream(request.app.state.agent, body.message, f"{caller}/{conversation_id}"):
                    if isinstance(piece, str):
                        yield f"data: {json.dumps({'text': piece})}\n\n"
            except ModelError as error:
                yield f"event: error\ndata: {json.dumps({'code': error.code})}\n\n"
            else:
                yield f"event: done\ndata: {json.dumps({'conversation_id': conversation_id})}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def main(argv: list[str] | None = None) -> int:
    """Show the gate before and after a shutdown is requested; the signals are for `--serve`."""
    shutdown = GracefulShutdown()
    hello = {"message": "What is 6 * 7?"}

    def steps() -> Iterator[demo.Send]:
        yield demo.Send("GET", "/ready", note="up: the load balancer may send requests")
        yield demo.Send("POST", "/v1/chat", hello, note="and they are answered")
        shutdown.request_shutdown()  # what SIGTERM and Ctrl-C do
        yield demo.Send(
            "GET", "/ready", note="a shutdown is requested: the load balancer is told", show=("Retry-After",)
        )
        yield demo.Send("POST", "/v1/chat", hello, note="who comes now is refused", show=("Retry-After", "Connection"))
        yield demo.Send("GET", "/health", note="alive all the time: nobody should kill it while it drains")

    return demo.run(__doc__, functools.partial(create_app, shutdown=shutdown), steps(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
