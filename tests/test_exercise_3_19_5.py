"""19.5.3: the core and the gate in this process; then a real server, real signals, and requests under way."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging.handlers
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from exercise_3_19_5_solution import (
    Budget,
    Drain,
    Gate,
    GracefulShutdown,
    StopSignals,
    create_app,
    flush_logs,
    main,
)

from tests.kit.app import Bench
from tests.kit.fakes import FakeClock
from tests.kit.serving import SETTINGS, client_of, serving
from tests.kit.standin import StandIn
from tests.kit.target import Starter, Target

pytestmark = pytest.mark.anyio
EXAMINED = Path(inspect.getfile(Gate)).parent  # also in processes of their own: a mutant is elsewhere
HELLO = {"message": "What is 6 * 7?"}


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


# ---------------------------------------------------------------- the core


def test_what_was_decided_stays() -> None:
    for kept, name in ((Drain(True, 0, 0.0), "remaining"), (Budget(), "timeout_s")):
        with pytest.raises(FrozenInstanceError):
            setattr(kept, name, 1)


async def test_requests_are_counted_in_and_out(clock: FakeClock) -> None:
    shutdown = GracefulShutdown(clock=clock)
    assert (shutdown.active_requests, shutdown.shutdown_requested) == (0, False)
    await shutdown.request_started()
    await shutdown.request_started()
    assert shutdown.active_requests == 2
    await shutdown.request_finished()
    assert shutdown.active_requests == 1


async def test_edge_a_task_whose_request_is_finished_is_not_cancelled() -> None:
    shutdown, current = GracefulShutdown(), asyncio.current_task()
    await shutdown.request_started()
    await shutdown.request_finished()
    shutdown.cancel_remaining()
    assert current and current.cancelling() == 0 and not shutdown.cancelled(current)


async def test_after_a_shutdown_is_requested_nothing_new_starts() -> None:
    shutdown = GracefulShutdown(retry_after_s=7)
    await shutdown.request_started()
    waiting = asyncio.create_task(shutdown.wait_for_shutdown())
    await settle()
    assert not waiting.done()
    shutdown.request_shutdown()
    with pytest.raises(RuntimeError, match="shutting down; try again in 7 s"):
        await shutdown.request_started()
    assert (shutdown.active_requests, shutdown.shutdown_requested) == (1, True)
    await waiting


def test_the_default_timeout_is_the_chapters() -> None:
    assert inspect.signature(GracefulShutdown.wait_for_completion).parameters["timeout"].default == 30.0
    assert GracefulShutdown().retry_after_s == 5
    assert Budget() == Budget(notice_s=0.0, timeout_s=20.0, cleanup_s=5.0, grace_s=30.0)


async def test_edge_without_requests_there_is_nothing_to_wait_for(clock: FakeClock) -> None:
    assert await GracefulShutdown(clock=clock).wait_for_completion(0) == Drain(True, 0, 0.0)


async def test_waiting_ends_with_the_last_request(clock: FakeClock) -> None:
    shutdown = GracefulShutdown(clock=clock)
    for _ in range(2):
        await shutdown.request_started()
    waiting = asyncio.create_task(shutdown.wait_for_completion())
    await settle()
    await shutdown.request_finished()
    await settle()
    assert not waiting.done()
    clock.now += 2
    await shutdown.request_finished()
    assert await waiting == Drain(True, 0, 2.0)


async def test_waiting_works_for_several_and_again() -> None:
    shutdown = GracefulShutdown()
    for _ in range(2):
        await shutdown.request_started()
        waiting = [asyncio.create_task(shutdown.wait_for_completion()) for _ in range(2)]
        await settle()
        assert not any(wait.done() for wait in waiting)
        await shutdown.request_finished()
        assert all([(await wait).finished for wait in waiting])


async def test_failure_waiting_ends_at_the_timeout(clock: FakeClock) -> None:
    shutdown = GracefulShutdown(clock=clock)
    await shutdown.request_started()
    assert await shutdown.wait_for_completion(0) == Drain(False, 1, 0.0)


def test_the_budget_must_fit_into_the_platforms_grace() -> None:
    assert Budget().needed_s == 25 and Budget().grace_s == 30
    assert Budget(1, 2, 3, 6.1).needed_s == 6
    with pytest.raises(ValueError, match=r"up to 6 s \(notice_s 1 \+ timeout_s 2 \+ cleanup_s 3\).*kills after 6 s"):
        Budget(1, 2, 3, 6)
    for wrong in ({"notice_s": -1.0}, {"timeout_s": -1.0}, {"cleanup_s": 0.0}):
        with pytest.raises(ValueError, match="must not be negative"):
            Budget(**wrong)
    assert Budget(0, 0, 1, 2).needed_s == 1


# ---------------------------------------------------------------- the gate

Sent = list[dict[str, Any]]


async def call(gate: Gate, path: str = "/v1/chat", kind: str = "http") -> Sent:
    sent: Sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await gate({"type": kind, "path": path}, receive, send)
    return sent


def begin(content_type: bytes = b"text/plain") -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]}


def app_that(work: Callable[[Callable[[Any], Awaitable[None]]], Awaitable[None]]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await work(send)

    return app


async def forever(send: Any) -> None:
    await asyncio.Event().wait()


async def test_a_request_counts_until_its_last_byte() -> None:
    shutdown, counts = GracefulShutdown(), []

    async def stream(send: Any) -> None:
        await send(begin())
        for more in (True, True, False):
            counts.append(shutdown.active_requests)
            await send({"type": "http.response.body", "body": b"x", "more_body": more})
        counts.append(shutdown.active_requests)  # what runs after the response counts as well

    assert len(await call(Gate(app_that(stream), shutdown=shutdown))) == 4
    assert (counts, shutdown.active_requests) == ([1, 1, 1, 1], 0)


async def test_failure_a_request_that_raises_is_counted_out() -> None:
    shutdown = GracefulShutdown()

    async def fail(send: Any) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await call(Gate(app_that(fail), shutdown=shutdown))
    assert shutdown.active_requests == 0


async def test_while_draining_new_requests_are_refused_and_health_is_not() -> None:
    shutdown, reached = GracefulShutdown(retry_after_s=9), []

    async def work(send: Any) -> None:
        reached.append(shutdown.active_requests)

    gate = Gate(app_that(work), shutdown=shutdown)
    shutdown.request_shutdown()
    start, body = await call(gate)
    headers = dict(start["headers"])
    assert start["status"] == 503
    assert (headers[b"retry-after"], headers[b"connection"]) == (b"9", b"close")
    assert int(headers[b"content-length"]) == len(body["body"]) and b"shutting_down" in body["body"]
    assert reached == []
    for path, kind in (("/health", "http"), ("/ready", "http"), ("/v1/chat", "lifespan"), ("/ws", "websocket")):
        await call(gate, path, kind)
    assert reached == [0, 0, 0, 0]


@pytest.mark.parametrize("path", ["/health/", "/health/x", "/v1/chat/health", "//health"])
async def test_abuse_only_the_two_health_paths_themselves_are_open(path: str) -> None:
    shutdown = GracefulShutdown()
    shutdown.request_shutdown()
    start, _ = await call(Gate(app_that(forever), shutdown=shutdown), path)
    assert start["status"] == 503


async def test_answers_given_while_draining_let_the_connection_go() -> None:
    shutdown = GracefulShutdown()

    async def work(send: Any) -> None:
        await send(begin())
        await send({"type": "http.response.body"})

    async def late(send: Any) -> None:
        shutdown.request_shutdown()
        await work(send)

    start, _ = await call(Gate(app_that(work), shutdown=shutdown))
    assert (b"connection", b"close") not in start["headers"]
    start, _ = await call(Gate(app_that(late), shutdown=shutdown))
    assert start["headers"] == [(b"content-type", b"text/plain"), (b"connection", b"close")]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (None, [503, "body"]),
        (begin(), [200]),
        (begin(b"text/event-stream; charset=utf-8"), [200, b'event: error\ndata: {"code": "shutting_down"}\n\n']),
    ],
)
async def test_what_is_cancelled_at_the_timeout_ends_as_clean_as_it_can(
    first: dict[str, Any] | None, expected: list[Any]
) -> None:
    shutdown = GracefulShutdown()

    async def work(send: Any) -> None:
        if first:
            await send(first)
        await asyncio.Event().wait()

    request = asyncio.create_task(call(Gate(app_that(work), shutdown=shutdown)))
    await settle()
    shutdown.request_shutdown()
    shutdown.cancel_remaining()
    sent = await request
    assert sent[0]["status"] == expected[0]
    assert len(sent) == len(expected)
    if isinstance(expected[-1], bytes):
        assert sent[-1]["body"] == expected[-1] and not sent[-1].get("more_body")
    assert shutdown.active_requests == 0


@pytest.mark.parametrize(("more", "sent_after"), [(True, 1), (False, 0)])
async def test_edge_only_a_stream_of_events_that_is_not_complete_gets_a_last_event(more: bool, sent_after: int) -> None:
    shutdown = GracefulShutdown()

    async def work(send: Any) -> None:
        await send(begin(b"text/event-stream"))
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": more})
        await asyncio.Event().wait()  # for instance in a task that runs after the response

    request = asyncio.create_task(call(Gate(app_that(work), shutdown=shutdown)))
    await settle()
    shutdown.cancel_remaining()
    assert len(await request) == 2 + sent_after and shutdown.active_requests == 0


async def test_edge_what_comes_before_the_answer_begins_is_passed_on_as_it_is() -> None:
    shutdown = GracefulShutdown()
    hint = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}

    async def work(send: Any) -> None:
        shutdown.request_shutdown()
        await send(dict(hint))
        await send(begin())
        await send({"type": "http.response.body"})

    first, start, _ = await call(Gate(app_that(work), shutdown=shutdown))
    assert first == hint and (b"connection", b"close") in start["headers"]


async def test_edge_a_cancellation_that_is_not_ours_goes_on() -> None:
    shutdown = GracefulShutdown()
    request = asyncio.create_task(call(Gate(app_that(forever), shutdown=shutdown)))
    await settle()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert shutdown.active_requests == 0


async def test_a_request_is_cancelled_once() -> None:
    shutdown, cancelled = GracefulShutdown(), []

    async def stubborn(send: Any) -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(0)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)
                if len(cancelled) == 2:
                    raise

    request = asyncio.create_task(call(Gate(app_that(stubborn), shutdown=shutdown)))
    await settle()
    for _ in range(3):
        shutdown.cancel_remaining()
        await settle()
    assert cancelled == [1]
    request.cancel()
    await request


# ---------------------------------------------------------------- signals, without sending any


class Server:
    """What uvicorn's Server is to a signal."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def handle_exit(self, number: int, frame: Any) -> None:
        self.heard.append(number)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("multiprocessing.parent_process", lambda: None)  # these tests may run in a worker themselves
    server = Server()
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    yield server
    signal.signal(signal.SIGTERM, before)


def small(timeout_s: float = 30.0) -> Budget:
    return Budget(timeout_s=timeout_s, cleanup_s=60, grace_s=100)


async def test_the_servers_handler_gets_the_signal_after_the_last_request(server: Server) -> None:
    shutdown = GracefulShutdown()
    await shutdown.request_started()
    with StopSignals(shutdown, small(), kill=lambda status: None):
        signal.raise_signal(signal.SIGTERM)
        await settle()
        assert shutdown.shutdown_requested and server.heard == []
        await shutdown.request_finished()
        await settle()
        assert server.heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit


async def test_a_second_signal_cuts_the_waiting_short(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    shutdown = GracefulShutdown()
    gate = Gate(app_that(forever), shutdown=shutdown)
    request = asyncio.create_task(call(gate))
    with StopSignals(shutdown, small(), kill=lambda status: None) as signals:
        await settle()
        signals.stop(signal.SIGTERM)
        await settle()
        assert not request.done()
        signals.stop(signal.SIGTERM)
        await settle()
        assert (await request)[0]["status"] == 503
        await settle()
        assert server.heard == [signal.SIGTERM]
    assert "cancelling 1 requests" in caplog.text


class Deadline:
    """threading.Timer, as far as it is used; it never goes off."""

    made: ClassVar[list[Deadline]] = []

    def __init__(self, after_s: float, call: Any, arguments: tuple[Any, ...]) -> None:
        self.says, self.daemon, self.started = (after_s, call, arguments), False, False
        self.made.append(self)

    def start(self) -> None:
        self.started = True


async def test_the_times_of_the_budget_are_kept_and_everything_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    waits: list[float] = []

    class Impatient(GracefulShutdown):
        async def wait_for_completion(self, timeout: float = 30.0) -> Drain:  # noqa: ASYNC109  (the chapter's name)
            waits.append(timeout)
            return Drain(False, self.active_requests, 0.0)

    monkeypatch.setattr(threading, "Timer", Deadline)
    monkeypatch.setattr(Deadline, "made", [])
    shutdown, others = Impatient(), asyncio.all_tasks()
    request = asyncio.create_task(call(Gate(app_that(forever), shutdown=shutdown)))
    with StopSignals(shutdown, Budget(timeout_s=7, cleanup_s=8), kill=print) as signals:
        await settle()
        signals.stop(signal.SIGTERM)
        await request
        await settle()
        assert server.heard == [signal.SIGTERM]
    assert waits == [7, 4]
    assert [(deadline.says, deadline.daemon, deadline.started) for deadline in Deadline.made] == [
        ((8, print, (1,)), True, True)
    ]
    assert "SIGTERM: 1 requests in progress" in caplog.text and "cancelling 1 requests" in caplog.text
    assert asyncio.all_tasks() == others, "nobody waits any more"


@pytest.mark.parametrize("hurried", [False, True])
async def test_nobody_waits_any_more_when_the_signal_is_handed_on(
    hurried: bool, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threading, "Timer", Deadline)
    shutdown, others = GracefulShutdown(), asyncio.all_tasks()
    budget = Budget(notice_s=4.5 if hurried else 0.0)
    with StopSignals(shutdown, budget) as signals:
        for _ in range(1 + hurried):
            signals.stop(signal.SIGTERM)
            await settle()
        assert server.heard == [signal.SIGTERM]
    assert asyncio.all_tasks() == others
    assert ("second signal: stopping now" in caplog.text) == hurried
    assert "cancelling" not in caplog.text


async def test_edge_where_nobody_had_a_handler_the_signal_does_what_it_does_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "Timer", Deadline)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raised: list[tuple[int, Any]] = []
    try:
        with StopSignals(GracefulShutdown(), small()) as signals:
            monkeypatch.setattr(signal, "raise_signal", lambda n: raised.append((n, signal.getsignal(n))))
            signals.stop(signal.SIGTERM)
            await settle()
        assert raised == [(signal.SIGTERM, signal.SIG_DFL)]
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_edge_in_a_worker_the_parents_echo_is_not_a_second_signal(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    shutdown = GracefulShutdown()
    request = asyncio.create_task(call(Gate(app_that(forever), shutdown=shutdown)))
    with StopSignals(shutdown, small(), kill=lambda status: None) as signals:
        await settle()
        for _ in range(2):
            signals.stop(signal.SIGTERM)
            await settle()
            assert not request.done()
        signals.stop(signal.SIGTERM)
        assert (await asyncio.wait_for(request, 5))[0]["status"] == 503  # long before the budget's 30 s
        await settle()


async def test_failure_work_that_cannot_be_cancelled_ends_with_the_process(server: Server) -> None:
    shutdown, killed = GracefulShutdown(), threading.Event()
    await shutdown.request_started()
    budget = Budget(timeout_s=0, cleanup_s=0.05, grace_s=1)
    current = asyncio.current_task()
    assert current
    with StopSignals(shutdown, budget, kill=lambda status: killed.set()) as signals:
        signals.stop(signal.SIGTERM)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        current.uncancel()
        assert await asyncio.to_thread(killed.wait, 5)
        await shutdown.request_finished()


async def test_windows_ctrl_break_is_heard_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with StopSignals(GracefulShutdown(), small(), kill=lambda status: None):
            signal.raise_signal(signal.SIGUSR1)
            await settle()
        assert heard == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


async def test_edge_outside_the_main_thread_no_handler_is_touched() -> None:
    async def elsewhere() -> None:
        with StopSignals(GracefulShutdown(), small()):
            pass

    before = signal.getsignal(signal.SIGTERM)
    await asyncio.to_thread(asyncio.run, elsewhere())
    assert signal.getsignal(signal.SIGTERM) is before


def test_logs_are_flushed() -> None:
    written: list[str] = []

    class Target(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    logger = logging.getLogger("test_19_5_3.buffered")
    handler = logging.handlers.MemoryHandler(100, target=Target())
    logger.addHandler(handler)
    try:
        logger.warning("the last words")
        assert written == []
        flush_logs()
        assert written == ["the last words"]
    finally:
        logger.removeHandler(handler)
        handler.close()


# ---------------------------------------------------------------- the app in this process


async def test_http_ready_and_chat_before_and_while_draining() -> None:
    from shared.offline import OfflineModel

    shutdown = GracefulShutdown()
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), shutdown=shutdown)) as http:
        assert (await http.get("/ready")).json() == {"status": "ready"}
        answer = await http.post("/v1/chat", json=HELLO)
        assert answer.json()["response"] == "[stand-in] 6 * 7 = 42"
        streamed = await http.post("/v1/chat/stream", json=HELLO)
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert streamed.text.endswith("}\n\n") and "event: done" in streamed.text and '"text": "42"' in streamed.text
        shutdown.request_shutdown()
        ready = await http.get("/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "5")
        for host in ("app", "x/health?", "localhost/ready#"):
            refused = await http.post("/v1/chat", json=HELLO, headers={"Host": host})
            assert (refused.status_code, refused.json()["code"]) == (503, "shutting_down")
        assert (await http.get("/health")).status_code == 200


async def test_http_failure_of_the_model_ends_a_stream_with_an_error() -> None:
    from shared.offline import Fault, OfflineModel

    model = OfflineModel()
    model.next(Fault(status=500))
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        streamed = await http.post("/v1/chat/stream", json=HELLO)
        assert streamed.text == 'event: error\ndata: {"code": "model_unavailable"}\n\n'


async def test_http_nobody_can_stop_the_service_from_outside() -> None:
    app = create_app(SETTINGS)
    posts = [route for route in app.openapi()["paths"] if "shut" in route or "stop" in route or "drain" in route]
    assert posts == []


async def test_the_same_app_starts_twice() -> None:
    from shared.offline import OfflineModel

    app = create_app(SETTINGS, client=client_of(OfflineModel()))
    for _ in range(2):
        async with serving(app) as http:
            assert (await http.post("/v1/chat", json=HELLO)).status_code == 200


def test_the_script_plays_its_transcript(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE", "1")
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and out.startswith("Exercise 3 (19.5): stop without losing a request.")
    for said in ('{"status":"ready"}', "6 * 7 = 42", "came  503", "Connection: close", '{"status":"healthy"}'):
        assert said in out


# ---------------------------------------------------------------- a real process and real signals

VICTIM = f"""
import asyncio, contextlib, logging, logging.handlers, os, sys, time
from pathlib import Path
sys.path.insert(0, {str(EXAMINED)!r})
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from exercise_3_19_5_solution import Budget, Gate, GracefulShutdown, StopSignals, create_app
from shared.config import Settings

BUDGET = Budget(*map(float, os.environ["BUDGET"].split()), grace_s=60)

class File(logging.FileHandler):
    def __init__(self): super().__init__("log.txt", delay=True)

def make():
    import openai
    close = openai.AsyncOpenAI.close
    async def noted(self):
        await close(self)
        print("client closed", flush=True)
    openai.AsyncOpenAI.close = noted
    logging.getLogger("exercise_3_19_5_solution").setLevel("INFO")
    logging.getLogger("exercise_3_19_5_solution").addHandler(logging.handlers.MemoryHandler(1000, 100, File()))
    app = create_app(Settings.load(), budget=BUDGET)

    @app.get("/drip")
    async def drip():
        async def drops():
            for number in range(1000):
                yield f"{{number}} "
                await asyncio.sleep(0.05)
        return StreamingResponse(drops())

    @app.get("/stubborn")
    async def stubborn():
        Path("stuck").touch()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    @app.get("/thread")
    def thread():
        Path("stuck").touch()
        time.sleep(60)

    return app

def one_of_two():  # without the agent, which takes seconds to load: what is tested is the gate behind two processes
    shutdown = GracefulShutdown()
    logging.getLogger("exercise_3_19_5_solution").setLevel("INFO")
    logging.getLogger("exercise_3_19_5_solution").addHandler(File())

    @contextlib.asynccontextmanager
    async def lifespan(app):
        with StopSignals(shutdown, BUDGET):
            Path(f"up-{{os.getpid()}}").touch()
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(Gate, shutdown=shutdown)

    @app.get("/slow/{{number}}")
    async def slow(number: int):
        Path(f"arrived-{{number}}").touch()
        while not Path("go").exists():
            await asyncio.sleep(0.01)
        return number

    return app
"""


class Command:
    """`uvicorn ...` as it is typed: a process of its own, in a session of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], factory: str, options: tuple[str, ...]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        command = [sys.executable, "-m", "uvicorn", f"victim:{factory}", "--factory", "--port", str(self.port)]
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *options], cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.pid = self._process.pid

    def gone(self, within_s: float) -> int:
        return self._process.wait(within_s)

    def output(self) -> str:
        return (self.folder / "output").read_text(encoding="utf-8")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(5)


class Forked:
    """The same in a fork of a process that has imported everything: it is up in a moment."""

    def __init__(self, folder: Path, environment: dict[str, str], starter: Starter) -> None:
        target = Target.parse(f"{folder / 'victim.py'}:make")
        self._process = starter.start(target, model_url=environment["OPENAI_BASE_URL"], env=environment)
        self.port, self.pid = self._process.port, self._process.pid

    def gone(self, within_s: float) -> int:
        assert self._process.status.wait(within_s), "it is still there"
        assert self._process.status.code is not None
        return self._process.status.code

    def output(self) -> str:
        return self._process.output()

    def close(self) -> None:
        self._process.stop()


class Running:
    """A service, and how to talk to it."""

    def __init__(self, folder: Path, model: StandIn, service: Command | Forked, http: httpx.AsyncClient) -> None:
        self.folder, self.model, self.service, self.http = folder, model.model, service, http

    async def under_way(self, *requests: Coroutine[Any, Any, httpx.Response]) -> list[asyncio.Task[httpx.Response]]:
        """Send requests to the model, which answers when `release` is called; return when all of them are there."""
        released = threading.Event()
        self.release = released.set
        self.model.may_answer = released.is_set
        self.model.calls.clear()
        sent = [asyncio.create_task(request) for request in requests]
        await until(lambda: len(self.model.calls) == len(sent))
        return sent

    def signal(self, number: int) -> None:
        os.kill(self.service.pid, number)

    async def heard(self) -> None:
        """Wait until readiness says that it stops."""
        while (await self.http.get("/ready")).status_code == 200:
            pass

    async def gone(self, within_s: float) -> int:
        return await asyncio.to_thread(self.service.gone, within_s)


async def until(holds: Callable[[], bool], within_s: float = 20) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    folder: Path, model: StandIn, starter: Starter | None = None, *options: str, factory: str = "make", budget: str = ""
) -> AsyncIterator[Running]:
    """Start a service: in a fork where there is a `starter`, else by uvicorn's command; wait until it is up."""
    (folder / "victim.py").write_text(VICTIM, encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(folder),
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": model.url,
        "API_KEY": "key",
        "BUDGET": budget or "0 20 5",
    }
    service = Forked(folder, environment, starter) if starter else Command(folder, environment, factory, options)
    base, limits = f"http://127.0.0.1:{service.port}", httpx.Limits(max_connections=200, max_keepalive_connections=0)
    try:
        async with httpx.AsyncClient(base_url=base, headers={"X-API-Key": "key"}, timeout=30, limits=limits) as http:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (await http.post("/v1/chat", json=HELLO)).status_code in (200, 404):  # the agent is loaded
                        break
                assert time.monotonic() < deadline, service.output()
                await asyncio.sleep(0.02)
            yield Running(folder, model, service, http)
    finally:
        service.close()


posix = pytest.mark.skipif(os.name != "posix", reason="signals between processes are POSIX")
SIGTERM_STATUS, SIGINT_STATUS = (-15, 143), (-2, 130, 0)


@posix
@pytest.mark.parametrize(
    ("number", "statuses"), [(signal.SIGTERM, SIGTERM_STATUS), (signal.SIGINT, SIGINT_STATUS)], ids=["term", "ctrl-c"]
)
async def test_signal_fifty_requests_under_way_get_one_complete_answer_each(
    tmp_path: Path, model: StandIn, bench: Bench, number: signal.Signals, statuses: tuple[int, ...]
) -> None:
    typed = number == signal.SIGTERM  # a fork is enough for the other
    async with running(tmp_path, model, None if typed else bench.starter) as run:
        requests = await run.under_way(
            *(
                run.http.post("/v1/chat/stream" if n % 2 else "/v1/chat", json={"message": f"{n} + 1"})
                for n in range(50)
            )
        )
        run.signal(number)
        await run.heard()
        late = [asyncio.create_task(run.http.post("/v1/chat", json=HELLO)) for _ in range(5)]
        assert (await run.http.get("/health")).status_code == 200
        for response in [await task for task in late]:
            assert response.status_code == 503
            assert response.headers["retry-after"] == "5" and response.headers["connection"] == "close"
        assert not any(request.done() for request in requests)
        run.release()
        for n, response in enumerate([await task for task in requests]):
            assert response.status_code == 200
            assert f"{n + 1}" in response.text and ("event: done" in response.text) == bool(n % 2)
        assert await run.gone(10) in statuses
        with pytest.raises(httpx.ConnectError):
            await run.http.get("/health")
        assert "client closed" in run.service.output()
        assert "Traceback" not in run.service.output() or number == signal.SIGINT
        if typed:  # in a fork uvicorn sets up logging after our handler, and takes its file away
            assert "50 requests in progress" in (tmp_path / "log.txt").read_text(encoding="utf-8")


@posix
async def test_signal_what_is_left_at_the_timeout_is_cancelled_and_told(
    tmp_path: Path, model: StandIn, bench: Bench
) -> None:
    async with running(tmp_path, model, bench.starter, budget="0 0.3 5") as run:
        (chat,) = await run.under_way(run.http.post("/v1/chat", json=HELLO))
        async with run.http.stream("GET", "/drip") as drip:
            drops = drip.aiter_text()
            await anext(drops)
            began = time.monotonic()
            run.signal(signal.SIGTERM)
            with pytest.raises(httpx.RemoteProtocolError):  # cut: a part is not taken for the whole
                async for _ in drops:
                    pass
        response = await chat
        assert (response.status_code, response.json()["code"]) == (503, "shutting_down")
        assert await run.gone(10) in SIGTERM_STATUS
        assert time.monotonic() - began >= 0.3
        assert "Traceback" not in run.service.output()
        assert "client closed" in run.service.output()


@posix
async def test_signal_a_second_one_stops_now(tmp_path: Path, model: StandIn, bench: Bench) -> None:
    async with running(tmp_path, model, bench.starter) as run:
        (chat,) = await run.under_way(run.http.post("/v1/chat", json=HELLO))
        run.signal(signal.SIGTERM)
        await run.heard()
        assert not chat.done()
        run.signal(signal.SIGTERM)
        assert (await chat).status_code == 503, "long before its timeout of 20 s: the model has not answered"
        assert await run.gone(10) in SIGTERM_STATUS


@posix
@pytest.mark.parametrize("path", ["/stubborn", "/thread"])
async def test_signal_failure_what_cannot_be_cancelled_ends_within_the_budget(
    tmp_path: Path, model: StandIn, bench: Bench, path: str
) -> None:
    async with running(tmp_path, model, bench.starter, budget="0 0.1 0.6") as run:
        stuck = asyncio.create_task(run.http.get(path))
        await until((tmp_path / "stuck").exists)
        run.signal(signal.SIGTERM)
        assert await run.gone(10) in (1, *SIGTERM_STATUS), "both would go on for a minute and more"
        await asyncio.wait((stuck,))
        stuck.exception()


@posix
async def test_signal_idle_it_is_gone_at_once(tmp_path: Path, model: StandIn, bench: Bench) -> None:
    async with running(tmp_path, model, bench.starter, budget="0 50 9") as run:
        run.signal(signal.SIGTERM)
        assert await run.gone(10) in SIGTERM_STATUS, "none of its 50 s are waited"


@posix
async def test_signal_with_notice_the_door_stays_open_for_it(tmp_path: Path, model: StandIn, bench: Bench) -> None:
    async with running(tmp_path, model, bench.starter, budget="0.6 1 1") as run:
        began = time.monotonic()
        run.signal(signal.SIGTERM)
        await run.heard()
        assert (await run.http.post("/v1/chat", json=HELLO)).status_code == 503
        assert await run.gone(10) in SIGTERM_STATUS
        assert time.monotonic() - began >= 0.6


@posix
@pytest.mark.parametrize("to_all", [False, True], ids=["term-to-the-parent", "ctrl-c-to-all"])
async def test_signal_two_workers_finish_as_well(tmp_path: Path, model: StandIn, to_all: bool) -> None:
    async with running(tmp_path, model, None, "--workers", "2", factory="one_of_two") as run:
        await until(lambda: len(list(tmp_path.glob("up-*"))) == 2)
        requests = [asyncio.create_task(run.http.get(f"/slow/{n}")) for n in range(20)]
        await until(lambda: len(list(tmp_path.glob("arrived-*"))) == 20)
        if to_all:
            os.killpg(run.service.pid, signal.SIGINT)
        else:
            run.signal(signal.SIGTERM)
        log = tmp_path / "log.txt"
        await until(lambda: log.exists() and log.read_text(encoding="utf-8").count("in progress") == 2)
        heard = [int(line.split()[1]) for line in log.read_text(encoding="utf-8").splitlines() if "in progress" in line]
        assert sum(heard) == 20
        assert not any(request.done() for request in requests)
        (tmp_path / "go").touch()
        for n, response in enumerate([await task for task in requests]):
            assert (response.status_code, response.json()) == (200, n)
        await run.gone(15)
        with pytest.raises(httpx.ConnectError):
            await run.http.get("/health")
