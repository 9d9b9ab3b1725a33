"""The failure matrix: what the caller gets, what the log and the metrics say, and that nothing accepted is lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from exercise_3_19_4_solution import Alert
from openai import AsyncOpenAI
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from production.alerts import Messenger
from production.app import create_app
from production.breaker import Breaker
from production.redis_stores import RedisLimits
from production.stores import LocalClaims
from shared.agent import ModelError
from shared.offline import Fault, OfflineModel
from tests.kit.fakes import FakeClock
from tests.kit.serving import KEYS, serving
from tests.kit.standin import StandIn
from tests.production.fleet import Instance, settings_of
from tests.production.proxy import Proxy
from tests.production.servers import Server, free_port, postgres_server, redis_program, redis_server
from tests.production.test_app import CHAT, config_of, service

pytestmark = pytest.mark.anyio
HEADERS = {"X-API-Key": KEYS[0]}
HELLO = {"message": "What is 6 * 7?", "conversation_id": "c"}


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """Collect what is logged, whatever the service does to the handlers."""
    records: list[logging.LogRecord] = []
    call = logging.Logger.callHandlers

    def collect(self: logging.Logger, record: logging.LogRecord) -> None:
        records.append(record)
        call(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", collect)
    yield records


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    for _ in range(3000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def statuses(records: list[logging.LogRecord]) -> list[Any]:
    """Return the statuses in the access log."""
    return [vars(r)["http.response.status_code"] for r in records if r.getMessage() == "the request is over"]


MODEL = {
    "429": (Fault(status=429, retry_after_s=7), 503, "model_busy"),
    "500": (Fault(status=500), 502, "model_unavailable"),
    "timeout": (Fault(hang=True), 504, "model_timeout"),
    "garbage": (Fault(garbage=True), 502, "model_bad_answer"),
}


@pytest.mark.parametrize("name", MODEL)
async def test_a_model_that_fails(name: str, tmp_path: Path, logged: list[logging.LogRecord]) -> None:
    fault, status, code = MODEL[name]
    model = OfflineModel()
    async with service(tmp_path, model) as (http, built):
        await http.post(CHAT, json=HELLO)
        if fault.hang:
            built.state.chat.config = dataclasses.replace(built.state.config, deadline_s=0.2)
        model.next(fault)
        answer = await http.post(CHAT, json=HELLO)
        metrics = (await http.get("/metrics")).json()
        history = (await http.get("/v1/conversations/c")).json()["messages"]
        built.state.chat.config = built.state.config
        again = await http.post(CHAT, json=HELLO)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("retry-after") == ("7" if name == "429" else None)
    assert [each["error"] for each in metrics["top_errors"]] == [f"{status} {code} at POST /v1/chat"]
    assert status in statuses(logged)
    told = [vars(r).get("error.type") for r in logged if r.getMessage() == "a message was not answered"]
    assert told == [code]
    assert len(history) == 2  # the turn that failed never happened, the one before it stands
    assert again.status_code == 200


async def test_a_stream_that_is_cut(tmp_path: Path, model: StandIn, logged: list[logging.LogRecord]) -> None:
    sdk = AsyncOpenAI(api_key="sk-test", base_url=model.url, max_retries=0)
    built = create_app(config_of(tmp_path), client=sdk)
    async with sdk, serving(built) as http:
        model.next(Fault(cut=True))
        answer = await http.post(f"{CHAT}/stream", json=HELLO)
        listed = (await http.get("/v1/conversations")).json()["conversations"]
    events = answer.text.strip().split("\n\n")
    assert answer.status_code == 200
    assert events[0].startswith("data: ")
    assert events[-1].startswith("event: error\n")
    assert json.loads(events[-1].partition("data: ")[2])["code"].startswith("model_")
    assert listed == []
    assert any("a stream ended early" in r.getMessage() for r in logged)


async def test_the_breaker_opens_refuses_at_once_and_tries_again(tmp_path: Path, clock: FakeClock) -> None:
    model = OfflineModel()
    async with service(tmp_path, model) as (http, built):
        built.state.chat.breaker = Breaker(3, 10, clock=clock)
        model.next(*(Fault(status=500) for _ in range(4)))
        failed = [(await http.post(CHAT, json=HELLO)).status_code for _ in range(3)]
        calls = len(model.calls)
        refused = await http.post(CHAT, json=HELLO)
        ready = (await http.get("/health/ready")).json()
        assert (failed, refused.status_code, len(model.calls)) == ([502] * 3, 503, calls)
        assert 1 <= int(refused.headers["retry-after"]) <= 11
        assert ready["model_circuit"] == "open"
        clock.now += 11
        assert (await http.post(CHAT, json=HELLO)).status_code == 502  # the one try fails: open again
        assert (await http.post(CHAT, json=HELLO)).status_code == 503
        clock.now += 11
        assert (await http.post(CHAT, json=HELLO)).status_code == 200
        assert (await http.post(CHAT, json=HELLO)).status_code == 200


def test_the_breaker_lets_one_try_through_and_ignores_what_is_not_the_models_fault(clock: FakeClock) -> None:
    breaker = Breaker(2, 10, clock=clock)
    for error in (ModelError("model_request_refused"), asyncio.CancelledError(), ModelError("model_busy")):
        breaker.before()
        breaker.after(error)
    assert not breaker.is_open
    breaker.before()
    breaker.after(ModelError("model_timeout"))
    assert breaker.is_open
    clock.now += 10
    breaker.before()
    with pytest.raises(ModelError):
        breaker.before()


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path, logged: list[logging.LogRecord]) -> None:
    async with service(tmp_path) as (http, built):
        await http.post(CHAT, json=HELLO)
        db = built.state.stores.saver.conn
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")  # what SQLITE_FULL comes from here
        long = {"message": "x" * 900, "conversation_id": "c"}
        answers = [await http.post(CHAT, json=long) for _ in range(12)]
        live = await http.get("/health/live")
        db.execute("PRAGMA max_page_count = 1073741823")
        metrics = (await http.get("/metrics")).json()
        again = await http.post(CHAT, json=HELLO)
        history = (await http.get("/v1/conversations/c")).json()["messages"]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all(answer.headers["retry-after"] == "5" for answer in refused)
    assert (live.status_code, again.status_code) == (200, 200)
    assert len(history) == 4 + 2 * sum(answer.status_code == 200 for answer in answers)
    assert any("store_unavailable" in each["error"] for each in metrics["top_errors"])
    assert any("a store cannot be reached" in r.getMessage() for r in logged)


async def test_a_body_too_large(tmp_path: Path, logged: list[logging.LogRecord]) -> None:
    async with service(tmp_path) as (http, _):
        answer = await http.post(CHAT, content=b"x" * 70_000)
        metrics = (await http.get("/metrics")).json()
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert 413 in statuses(logged)
    assert metrics["top_errors"][0]["error"].startswith("413 ")


async def test_a_webhook_that_is_down_gives_the_claim_back_and_holds_nobody_up(
    logged: list[logging.LogRecord],
) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    claims, alert = LocalClaims(), Alert("error_rate", "firing", 0.5, 0.2, 10)
    messenger = Messenger(SecretStr("https://hooks.example.org/secret"), httpx.MockTransport(refuse))
    async with messenger.running(claims):
        with pytest.raises(httpx.ConnectError):
            await messenger.send(alert)
    assert await claims.claim("alert:error_rate:firing", 1)
    assert any("error_rate is firing" in r.getMessage() for r in logged)
    assert not any("secret" in r.getMessage() for r in logged)


async def test_a_clock_that_jumps_lets_nobody_pass_and_locks_nobody_out(redis_url: str, clock: FakeClock) -> None:
    async with contextlib.aclosing(Redis.from_url(redis_url)) as client:
        limits = RedisLimits(client, 2, 60, clock=clock)
        assert [(await limits.hit("k"))[0] for _ in range(3)] == [True, True, False]
        clock.now -= 3600  # the server's clock was set back
        passed, window = await limits.hit("k")
        assert not passed
        assert window.retry_after_s > 0
        clock.now += 3600 + 61
        assert (await limits.hit("k"))[0]


# ---------------------------------------------------------------- with the stores of several processes


@pytest.fixture
def own_redis() -> Iterator[Server]:
    """A Redis that a test may break."""
    if not redis_program():
        pytest.skip("redis-server is not installed")
    with redis_server() as server:
        yield server


def shared_of(redis_port: int, database_url: str) -> dict[str, Any]:
    return {
        "redis_url": SecretStr(f"redis://127.0.0.1:{redis_port}/0"),
        "database_url": SecretStr(database_url),
        "rate_limit": 1000,
    }


async def test_redis_down_in_flight_denies_by_default_logs_once_and_recovers(
    tmp_path: Path, own_redis: Server, database_url: str, logged: list[logging.LogRecord]
) -> None:
    async with service(tmp_path, **shared_of(own_redis.port, database_url)) as (http, _):
        queued = (await http.post(f"{CHAT}/queue", json=HELLO)).json()["request_id"]
        done = (await http.get(f"/v1/status/{queued}?wait=20")).json()
        own_redis.kill()
        refused = [await http.post(CHAT, json=HELLO) for _ in range(2)]
        ready = await http.get("/health/ready")
        own_redis.start()
        again = await http.post(CHAT, json=HELLO)
        kept = (await http.get(f"/v1/status/{queued}")).json()
        metrics = (await http.get("/metrics")).json()
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in refused] == [(503, "5")] * 2
    assert (ready.status_code, ready.json()["dependencies"]["postgres"]) == (503, "ok")
    assert ready.json()["dependencies"]["redis"] != "ok"
    assert again.status_code == 200
    assert (done["status"], kept) == ("completed", done)
    assert len([r for r in logged if "rate limits cannot be read" in r.getMessage()]) == 1
    assert any("store_unavailable" in each["error"] for each in metrics["top_errors"])


async def test_redis_down_at_start_serves_refusals_until_it_is_there(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    async with service(tmp_path, **shared_of(port, database_url)) as (http, _):
        answer = await http.post(CHAT, json=HELLO)
        live = await http.get("/health/live")
        ready = await http.get("/health/ready")
    assert (answer.status_code, live.status_code, ready.status_code) == (503, 200, 503)


async def test_postgres_down_in_flight_refuses_and_recovers(
    tmp_path: Path, redis_url: str, logged: list[logging.LogRecord]
) -> None:
    with postgres_server() as server:
        from tests.production.servers import new_database, wait_for_postgres

        shared = shared_of(int(redis_url.split(":")[2].partition("/")[0]), new_database(server.port, "one"))
        async with service(tmp_path, **shared) as (http, _):
            first = await http.post(CHAT, json=HELLO)
            server.stop()
            refused = await http.post(CHAT, json=HELLO)
            ready = await http.get("/health/ready")
            server.start()
            await asyncio.to_thread(wait_for_postgres, server.port)
            for _ in range(300):  # the pool connects again in its own time
                if (again := await http.post(CHAT, json=HELLO)).status_code == 200:
                    break
                await asyncio.sleep(0.1)
            history = (await http.get("/v1/conversations/c")).json()["messages"]
    assert (first.status_code, refused.status_code, again.status_code) == (200, 503, 200)
    assert refused.headers["retry-after"] == "5"
    assert ready.json()["dependencies"] | {"redis": "ok"} != {"postgres": "ok", "redis": "ok"}
    assert len(history) == 4
    assert any("a store cannot be reached" in r.getMessage() for r in logged)


def port_of(url: str) -> int:
    """Return the port in an address."""
    port = urlsplit(url).port
    assert port
    return port


async def test_a_hit_whose_answer_was_lost_is_sent_again_and_counted_once(redis_url: str) -> None:
    async with Proxy(port_of(redis_url)).running() as proxy:
        retry = Retry(NoBackoff(), 2)
        async with contextlib.aclosing(Redis(port=proxy.port, retry=retry)) as client:
            limits = RedisLimits(client, 3)
            assert (await limits.hit("k"))[1].remaining == 2
            proxy.lose = True
            passed, window = await limits.hit("k")
            assert (passed, window.remaining, proxy.lose) == (True, 1, False)
            assert [(await limits.hit("k"))[0] for _ in range(2)] == [True, False]


async def test_a_slow_redis_is_waited_for_within_bounds_then_refused(
    tmp_path: Path, redis_url: str, database_url: str, logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("production.redis_stores.TIMEOUT_S", 0.2)
    async with Proxy(port_of(redis_url)).running() as proxy:
        config = shared_of(proxy.port, database_url)
        async with service(tmp_path, **config) as (http, _):
            job = (await http.post(f"{CHAT}/queue", json=HELLO)).json()["request_id"]
            proxy.delay_s = 0.02
            late = await http.post(CHAT, json=HELLO)
            proxy.delay_s = 30.0
            refused = await http.post(CHAT, json=HELLO)
            ready = await http.get("/health/ready")
            proxy.delay_s = 0.0
            again = await http.post(CHAT, json=HELLO)
            kept = (await http.get(f"/v1/status/{job}?wait=20")).json()
            history = (await http.get("/v1/conversations/c")).json()["messages"]
            metrics = (await http.get("/metrics")).json()
    assert (late.status_code, refused.status_code, again.status_code) == (200, 503, 200)
    assert refused.headers["retry-after"] == "5"
    assert ready.status_code == 503
    assert ready.json()["dependencies"]["redis"] != "ok"
    assert kept["status"] == "completed"
    assert len(history) == 6  # the job's turn, the late one's, the last one's
    assert len([r for r in logged if "rate limits cannot be read" in r.getMessage()]) == 1
    assert any("503 store_unavailable" in each["error"] for each in metrics["top_errors"])


async def test_a_slow_postgres_is_waited_for_within_bounds_then_refused(
    tmp_path: Path, redis_url: str, database_url: str, logged: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("production.postgres_stores.NO_ANSWER_S", 0.5)
    async with Proxy(port_of(database_url)).running() as proxy:
        slow = database_url.replace(f":{port_of(database_url)}", f":{proxy.port}")
        shared = shared_of(port_of(redis_url), slow)
        async with service(tmp_path, **shared) as (http, _):
            first = await http.post(CHAT, json=HELLO)
            proxy.delay_s = 30.0
            refused = await http.post(CHAT, json=HELLO)
            ready = await http.get("/health/ready")
            proxy.delay_s = 0.0
            for _ in range(300):  # the pool connects again in its own time
                if (again := await http.post(CHAT, json=HELLO)).status_code == 200:
                    break
                await asyncio.sleep(0.1)
            history = (await http.get("/v1/conversations/c")).json()["messages"]
            metrics = (await http.get("/metrics")).json()
    assert (first.status_code, again.status_code) == (200, 200)
    assert (refused.status_code, refused.headers.get("retry-after")) == (503, "5")
    assert ready.json()["dependencies"]["postgres"] != "ok"
    assert len(history) == 4
    assert any("a store cannot be reached" in r.getMessage() for r in logged)
    assert any("503 store_unavailable" in each["error"] for each in metrics["top_errors"])


async def test_postgres_down_at_start_ends_the_start(tmp_path: Path, redis_url: str) -> None:
    nowhere = f"postgresql://chapter@127.0.0.1:{free_port()}/none"
    with pytest.raises(psycopg.OperationalError):
        async with service(tmp_path, **shared_of(port_of(redis_url), nowhere)):
            raise AssertionError("it started")


# ---------------------------------------------------------------- a process, its signals, and clients who leave


@contextlib.contextmanager
def alone(folder: Path, model: StandIn, **more: str) -> Iterator[Instance]:
    """Run one embedded instance."""
    settings = settings_of("", "", model.url, STATE_DB=str(folder / "state.sqlite3"), **more)
    one = Instance(folder, "one", free_port(), settings)
    try:
        one.begin()
        one.wait()
        yield one
    finally:
        one.kill()


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}/stream"])
async def test_a_client_who_leaves_cancels_the_model_call(path: str, tmp_path: Path) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class Watched(OfflineModel):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    incoming = [{"type": "http.request", "body": json.dumps(HELLO).encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    headers = [(b"x-api-key", KEYS[0].encode()), (b"content-type", b"application/json"), (b"host", b"app")]
    async with service(tmp_path, Watched()) as (_, built):
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "scheme": "http", "http_version": "1.1", "client": ("c", 1), "server": ("app", 80),
            "asgi": {"version": "3.0"}, "root_path": "", "app": built,
        }  # fmt: skip
        await asyncio.wait_for(built(scope, receive, send), 20)
        await asyncio.wait_for(cancelled.wait(), 20)


async def test_sigterm_under_load_finishes_what_is_under_way_and_refuses_the_rest(
    tmp_path: Path, model: StandIn
) -> None:
    model.model.delay_s = 1.0
    with alone(tmp_path, model, NOTICE_S="0.5") as one:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", headers=HEADERS, timeout=60) as http:
            under_way = [
                asyncio.create_task(http.post(path, json={"message": "What is 6 * 7?", "conversation_id": f"c{n}"}))
                for n, path in enumerate((CHAT, CHAT, f"{CHAT}/stream"))
            ]
            await until(lambda: len(model.model.calls) == 3)
            assert one.process
            one.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                while (late := await http.post(CHAT, json=HELLO)).status_code == 200:
                    pass
            answers = await asyncio.gather(*under_way)
            status = await asyncio.to_thread(one.process.wait, 60)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "event: done" in answers[2].text
    assert (late.status_code, int(late.headers["retry-after"]) > 0) == (503, True)
    assert status in (0, 143, -15)


async def test_kill_minus_9_keeps_every_finished_answer_and_every_accepted_job(tmp_path: Path, model: StandIn) -> None:
    model.model.delay_s = 0.05
    finished, accepted = [], []
    with alone(tmp_path, model) as one:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", headers=HEADERS, timeout=60) as http:
            for n in range(5):
                answer = await http.post(CHAT, json={"message": "What is 6 * 7?", "conversation_id": f"c{n}"})
                finished += [f"c{n}"] * (answer.status_code == 200)
            for n in range(20):
                job = await http.post(f"{CHAT}/queue", json={"message": f"What is {n} * 2?"})
                accepted.append(job.json()["request_id"])
        one.kill()
        one.begin()
        await asyncio.to_thread(one.wait)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{one.port}", headers=HEADERS, timeout=60) as http:
            for name in finished:
                assert len((await http.get(f"/v1/conversations/{name}")).json()["messages"]) == 2
            states = [(await http.get(f"/v1/status/{request_id}?wait=20")).json() for request_id in accepted]
    assert len(finished) == 5
    assert {state["status"] for state in states} <= {"completed", "failed"}
    assert all(state.get("error") in (None, "interrupted") for state in states)  # at most those that were under way
    assert sum(state["status"] == "failed" for state in states) <= 5
