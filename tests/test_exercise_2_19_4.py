"""19.4.2: numbers equal to an oracle's, memory that stays, three readers of one address, and the page in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import socket
import threading
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import exercise_2_19_4_solution as exercise
import httpx
import numpy as np
import pytest
import uvicorn
from exercise_2_19_4_solution import Metrics, best_type, create_app, percentile, strict_policy
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from shared.api import caller_id
from shared.config import Settings
from shared.offline import Fault, OfflineModel
from tests.kit.browser import Browser, opened
from tests.kit.fakes import FakeClock

SETTINGS = Settings(openai_api_key="sk-test", api_keys=("key-of-alice", "key-of-bob"))
ALICE, BOB = {"X-API-Key": "key-of-alice"}, {"X-API-Key": "key-of-bob"}
TEXT = {"Accept": "text/plain"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PROMETHEUS = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.5)


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(clock=clock)


def requests(metrics: Metrics, count: int = 1, **other: Any) -> None:
    defaults: dict[str, Any] = {"method": "POST", "route": "/v1/chat", "status": 200, "duration_s": 0.5}
    for _ in range(count):
        metrics.record(**defaults | other)


# ---------------------------------------------------------------- the percentile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.sampled_from((0, 5, 50, 95, 99, 100)))
def test_the_percentile_is_numpys_to_the_last_bit(values: list[float], percent: float) -> None:
    assert percentile(sorted(values), percent) == float(np.percentile(values, percent))


def test_edge_exactly_between_two_values_it_is_counted_from_the_upper_one() -> None:
    assert percentile([0.13, 8.47], 50) == float(np.percentile([0.13, 8.47], 50)) == 4.300000000000001


def test_the_percentile_of_nothing_is_none_and_of_one_is_that_one() -> None:
    assert percentile([], 95) is None
    assert percentile([3.0], 95) == 3.0


def test_the_95th_percentile_is_exact_over_the_last_thousand_requests(metrics: Metrics) -> None:
    chance = random.Random(1)
    durations = [chance.expovariate(2) for _ in range(2500)]
    for count, duration_s in enumerate(durations, 1):
        requests(metrics, duration_s=duration_s)
        if count in (1, 2, 20, 999, 1000, 1001, 2500):
            last, snapshot = durations[max(0, count - 1000) : count], metrics.snapshot()
            assert snapshot.p95_s == float(np.percentile(last, 95))
            assert snapshot.p50_s == float(np.percentile(last, 50))
            assert (snapshot.max_s, snapshot.samples) == (max(last), len(last))


# ---------------------------------------------------------------- the minutes


def test_requests_of_the_last_five_minutes_are_counted_by_the_minute(metrics: Metrics, clock: FakeClock) -> None:
    assert metrics.snapshot().requests_per_minute == [0, 0, 0, 0, 0]
    requests(metrics, 3)
    clock.now += 59
    requests(metrics, 2)
    assert metrics.snapshot().requests_per_minute == [0, 0, 0, 0, 5]
    clock.now += 1
    assert metrics.snapshot().requests_per_minute == [0, 0, 0, 3, 2]
    clock.now += 180
    assert metrics.snapshot().requests_per_minute == [3, 2, 0, 0, 0]
    clock.now += 59
    assert metrics.snapshot().requests_per_minute == [5, 0, 0, 0, 0]
    clock.now += 1
    assert metrics.snapshot().requests_per_minute == [2, 0, 0, 0, 0]
    clock.now += 59
    assert metrics.snapshot().requests_per_minute == [0, 0, 0, 0, 0]


def test_a_silence_longer_than_the_ring_clears_all_of_it(metrics: Metrics, clock: FakeClock) -> None:
    for _ in range(300):
        requests(metrics)
        clock.now += 1
    clock.now += 1_000
    assert metrics.snapshot().requests_per_minute == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("idle_s", [299, 300, 301, 100_000])
def test_a_long_silence_leaves_nothing_behind(metrics: Metrics, clock: FakeClock, idle_s: int) -> None:
    requests(metrics, 7)
    clock.now += idle_s
    requests(metrics)
    assert metrics.snapshot().requests_per_minute == [7 if idle_s < 300 else 0, 0, 0, 0, 1]


def test_minutes_equal_a_brute_force_count_over_random_arrivals(clock: FakeClock) -> None:
    chance = random.Random(2)
    metrics, arrivals = Metrics(clock=clock), []
    for _ in range(500):
        clock.now += chance.choice((0, 0, 0.3, 5, 40, 100))
        requests(metrics)
        arrivals.append(int(clock.now))
        ages = Counter((int(clock.now) - arrival) // 60 for arrival in arrivals)
        assert metrics.snapshot().requests_per_minute == [ages[minute] for minute in (4, 3, 2, 1, 0)]


def test_times_are_shown_in_milliseconds_with_three_digits(metrics: Metrics) -> None:
    requests(metrics, duration_s=0.0123456)
    shown = metrics.snapshot().as_json()["response_time"]
    assert (shown["p50_ms"], shown["p95_ms"], shown["max_ms"]) == (12.346,) * 3


# ---------------------------------------------------------------- errors and tokens


def test_the_five_most_common_errors_come_largest_first(metrics: Metrics) -> None:
    for number in range(7):
        requests(metrics, number, error=f"error {number}")
    requests(metrics, 6, error="another 6")
    expected = [("another 6", 6), ("error 6", 6), ("error 5", 5), ("error 4", 4), ("error 3", 3)]
    assert metrics.snapshot().top_errors == expected


def test_tokens_are_the_callers_own_and_largest_first(metrics: Metrics) -> None:
    metrics.record_tokens("alice", "small", (1, 2))
    metrics.record_tokens("alice", "big", (10, 20))
    metrics.record_tokens("alice", "big", (3, 4))
    metrics.record_tokens("alice", "big", None)
    metrics.record_tokens("alice", "unknown", None)
    metrics.record_tokens("bob", "big", (7, 7))
    Row = exercise.ConversationTokens
    assert metrics.snapshot("alice").tokens == [
        Row("big", 3, 13, 24, 37), Row("small", 1, 1, 2, 3), Row("unknown", 1, None, None, None)
    ]  # fmt: skip
    assert metrics.snapshot("bob").tokens == [Row("big", 1, 7, 7, 14)]
    assert metrics.snapshot().tokens == metrics.snapshot("nobody").tokens == []


def test_of_more_than_a_hundred_conversations_the_longest_idle_ones_are_kept_as_a_sum(metrics: Metrics) -> None:
    for number in range(100):
        metrics.record_tokens("alice", f"c{number}", (number, 1))
    assert all(row.conversation_id for row in metrics.snapshot("alice").tokens)
    metrics.record_tokens("alice", "c0", (1000, 1))
    for number in (100, 101):
        metrics.record_tokens("alice", f"c{number}", (number, 1))
    rows = {row.conversation_id: row for row in metrics.snapshot("alice").tokens}
    assert "c0" in rows and "c1" not in rows and len(rows) == 101
    assert rows[None] == exercise.ConversationTokens(None, 2, 3, 2, 5)
    assert sum(row.input_tokens or 0 for row in rows.values()) == sum(range(102)) + 1000


def test_uncounted_conversations_stay_uncounted_and_behind_those_with_a_count(metrics: Metrics) -> None:
    for number in range(101):
        metrics.record_tokens("alice", f"c{number}", None)
    rows = metrics.snapshot("alice").tokens
    assert [row.total_tokens for row in rows] == [None] * 101
    assert [row.requests for row in rows if row.conversation_id is None] == [1]
    metrics.record_tokens("bob", "empty", (0, 0))
    metrics.record_tokens("bob", "uncounted", None)
    rows = metrics.snapshot("bob").tokens
    assert [row.conversation_id for row in rows] == ["empty", "uncounted"]
    metrics.record_tokens("carol", "uncounted", None)
    metrics.record_tokens("carol", "one", (1, 0))
    assert [row.conversation_id for row in metrics.snapshot("carol").tokens] == ["one", "uncounted"]
    for frozen in (rows[0], metrics.snapshot()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.samples = 1  # type: ignore[misc, union-attr]


def test_memory_stays_whatever_a_client_thinks_of(metrics: Metrics, clock: FakeClock) -> None:
    def flood(start: int) -> None:
        for number in range(start, start + 10_000):
            clock.now += 0.1
            requests(metrics, route=f"/{number}", error=f"error {number}")
            metrics.record_tokens("alice", f"c{number}", (1, 1))

    flood(0)
    tracemalloc.start()
    flood(10_000)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
    assert len(metrics._requests) == len(metrics._errors) == 101
    assert metrics._errors["(other)"] == metrics._requests["(other)", "(other)", 0] == 19_900
    assert len(metrics._tokens["alice"]) == 101
    assert len(metrics._seconds) == 300 and len(metrics._durations) == 1000


def test_counts_are_exact_under_threads(metrics: Metrics) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: requests(metrics, 500, error="e"), range(8)))
    assert metrics._count == 4000 and metrics._errors["e"] == 4000
    assert metrics.snapshot().requests_per_minute[-1] == 4000


# ---------------------------------------------------------------- which reader


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("", "application/json"),
        ("image/png", "application/json"),
        ("application/json", "application/json"),
        ("text/plain", "text/plain"),
        ("TEXT/PLAIN; version=0.0.4", "text/plain"),
        ("text/html", "text/html"),
        ("text/*", "text/plain"),
        ("text/*;q=0.5, text/html", "text/html"),
        ("text/html;q=0.1, text/plain;q=0.2", "text/plain"),
        ("text/html;q=0, */*", "application/json"),
        ("text/html, text/html;q=0, text/plain;q=0.5", "text/html"),  # what is said first stands
        ("text/html;q=nonsense, text/plain;q=0.9", "text/html"),
        (BROWSER["Accept"], "text/html"),
        (PROMETHEUS["Accept"], "text/plain"),
    ],
)
def test_the_accept_header_chooses_the_reader(accept: str, kind: str) -> None:
    assert best_type(accept) == kind


def test_prometheus_text_is_parsed_by_prometheus(metrics: Metrics) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    nasty = 'a "quoted" \\ and\nbroken'
    requests(metrics, 3)
    requests(metrics, route=nasty, status=404, error=nasty)
    metrics.record_tokens("alice", "c", (5, 7))
    families = {family.name: family for family in parser.text_string_to_metric_families(metrics.prometheus())}
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert found == {
        ("http_requests_total", "/v1/chat", "200", "POST"): 3,
        ("http_requests_total", "404", "POST", nasty): 1,
        ("http_errors_total", nasty): 1,
        ("http_request_duration_seconds", "0.95"): 0.5,
        ("http_request_duration_seconds_sum",): 2.0,
        ("http_request_duration_seconds_count",): 4,
        ("gen_ai_tokens_total", "input"): 5,
        ("gen_ai_tokens_total", "output"): 7,
    }
    assert {name: family.type for name, family in families.items()} == {
        "http_requests": "counter", "http_errors": "counter", "http_request_duration_seconds": "summary",
        "gen_ai_tokens": "counter",
    }  # fmt: skip
    assert list(parser.text_string_to_metric_families(Metrics().prometheus()))


# ---------------------------------------------------------------- over HTTP


class Served:
    def __init__(self, app: FastAPI, http: httpx.AsyncClient, model: OfflineModel) -> None:
        self.app, self.http, self.model = app, http, model

    async def chat(self, message: str = "hi", conversation: str = "c-1", **headers: str) -> httpx.Response:
        body = {"message": message, "conversation_id": conversation}
        return await self.http.post("/v1/chat", json=body, headers=ALICE | headers)

    async def metrics(self, **headers: str) -> Any:
        return (await self.http.get("/metrics", headers=ALICE | headers)).json()


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    model = OfflineModel()
    http_client: Any = httpx.AsyncClient(transport=httpx.ASGITransport(model))
    async with AsyncOpenAI(
        api_key="sk-test", base_url="http://model/v1", http_client=http_client, max_retries=0
    ) as client:
        app = create_app(SETTINGS, client=client, **options)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as http,
        ):
            yield Served(app, http, model)


@pytest.fixture
async def app() -> AsyncIterator[Served]:
    async with served() as service:
        yield service


@pytest.mark.anyio
async def test_metrics_show_what_was_asked(app: Served) -> None:
    await app.chat("What is 6 * 7?")
    await app.chat("hi", "c-2", **BOB)
    app.model.next(Fault(status=500), Fault(status=500))
    await app.chat()
    await app.chat()
    await app.chat("")
    await app.http.get("/nowhere/1")
    await app.http.get("/nowhere/2")
    await app.http.get("/health")
    seen = await app.metrics()
    assert await app.metrics() == seen, "looking changes nothing"
    assert seen["scope"] == "process"
    assert seen["requests_per_minute"][-1] == {"minutes_ago": 0, "requests": 7}
    assert [minute["minutes_ago"] for minute in seen["requests_per_minute"]] == [4, 3, 2, 1, 0]
    times = seen["response_time"]
    assert times["samples"] == 7 and 0 < times["p50_ms"] <= times["p95_ms"] <= times["max_ms"]
    assert times["definition"] == "Linear interpolation over the last 1,000 requests, failed ones included"
    assert seen["top_errors"][:2] == [
        {"error": "404 Not Found at GET (no route)", "count": 2},
        {"error": "502 model_unavailable at POST /v1/chat", "count": 2},
    ]
    assert seen["top_errors"][2]["error"].startswith("422 ") and len(seen["top_errors"]) == 3
    assert seen["tokens_by_conversation"] == [
        {"conversation_id": "c-1", "requests": 1, "input_tokens": 15, "output_tokens": 10, "total_tokens": 25}
    ]


@pytest.mark.anyio
async def test_tokens_nobody_counted_are_null(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = app.model._completion
    monkeypatch.setattr(app.model, "_completion", lambda body: whole(body) | {"usage": None})
    await app.chat()
    (row,) = (await app.metrics())["tokens_by_conversation"]
    assert row["input_tokens"] is row["output_tokens"] is row["total_tokens"] is None and row["requests"] == 1


@pytest.mark.anyio
async def test_a_crash_an_odd_method_and_a_template_are_counted_under_names_that_stay_few(app: Served) -> None:
    @app.app.get("/items/{name}")
    async def item(name: str) -> None:
        raise RuntimeError(name)

    for number in range(20):
        assert (await app.http.get(f"/items/{number}")).status_code == 500
        await app.http.request(f"METHOD{number}", "/v1/chat")
    assert (await app.metrics())["top_errors"] == [
        {"error": "405 Method Not Allowed at (other) /v1/chat", "count": 20},
        {"error": "500 RuntimeError at GET /items/{name}", "count": 20},
    ]


@pytest.mark.anyio
async def test_a_stream_is_timed_to_its_last_byte() -> None:
    now = itertools.count(0, 1000)
    metrics = Metrics()

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await StreamingResponse(iter(["a", "b"]))(scope, receive, send)

    async def send(message: Any) -> None:
        pass

    async def receive() -> Any:
        await asyncio.Event().wait()

    middleware = exercise.MetricsMiddleware(inner, metrics=metrics, clock=lambda: float(next(now)))
    await middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send)
    assert metrics.snapshot().max_s == 1000.0


@pytest.mark.anyio
async def test_edge_a_bad_request_is_an_error_and_its_time_ends_with_its_last_byte(clock: FakeClock) -> None:
    metrics = Metrics()

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        clock.now += 1
        await send({"type": "http.response.start", "status": 400, "headers": []})
        clock.now += 1
        await send({"type": "http.response.body", "body": b"no", "more_body": False})
        clock.now += 7  # what an app does after it has answered is nobody's waiting

    async def nothing(*_: Any) -> Any:
        pass

    middleware = exercise.MetricsMiddleware(inner, metrics=metrics, clock=clock)
    await middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, nothing, nothing)
    seen = metrics.snapshot()
    assert seen.max_s == 2.0
    assert seen.top_errors == [("400 Bad Request at GET (no route)", 1)]


@pytest.mark.anyio
async def test_a_client_that_leaves_is_an_error_of_its_own(app: Served) -> None:
    app.model.next(Fault(hang=True))
    chat = asyncio.create_task(app.chat())
    while not app.model.calls:  # noqa: ASYNC110  (the stand-in tells nobody)
        await asyncio.sleep(0.001)
    chat.cancel()
    with pytest.raises(asyncio.CancelledError):
        await chat
    assert (await app.metrics())["top_errors"] == [{"error": "499 Client Left at POST /v1/chat", "count": 1}]


@pytest.mark.anyio
async def test_numbers_need_a_key_and_the_empty_page_does_not(app: Served) -> None:
    assert (await app.http.get("/metrics")).status_code == 401
    assert (await app.http.get("/metrics", headers=TEXT)).status_code == 401
    page = await app.http.get("/metrics", headers=BROWSER)
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "Accept" and page.headers["cache-control"] == "no-store"
    text = await app.http.get("/metrics", headers=TEXT | ALICE)
    assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8" and "vary" in text.headers


def test_the_page_brings_all_it_needs_and_its_policy_allows_nothing_else() -> None:
    page = exercise.PAGE.read_text(encoding="utf-8")
    policy = dict(part.strip().split(" ", 1) for part in strict_policy(page).split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-") and policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in strict_policy(page)
    assert page.count("<script") == page.count("<style") == 1
    assert not [word for word in ("style=", "onclick", "src=", "href=", "innerHTML", "//cdn", "eval(") if word in page]
    assert 'lang="en"' in page and 'name="viewport"' in page and page.count("<caption>") == 4


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    yield from opened(tmp_path)


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the app on a port, with some history."""
    chance, metrics = random.Random(3), Metrics()
    for number in range(300):
        metrics._clock = lambda number=number: number  # type: ignore[misc]
        metrics.record("POST", "/v1/chat", 200, chance.expovariate(5))
    for name, count in (("502 model_unavailable at POST /v1/chat", 9), ("404 <b>Not</b> Found", 4)):
        requests(metrics, count, status=502, error=name)
    caller = caller_id("key-of-alice")
    for number in range(4):
        metrics.record_tokens(caller, f"conversation-{number}", (100 * number, 40))
    metrics.record_tokens(caller, "uncounted", None)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # whoever comes before the server is up waits
    app = create_app(SETTINGS, client=object(), metrics=metrics)  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


def test_the_page_works_under_its_policy_on_a_phone_and_for_a_screen_reader(browser: Browser, address: str) -> None:
    browser("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    browser.open(f"{address}/metrics")
    wait = "new Promise(done => { const look = () => CONDITION ? done(true) : setTimeout(look, 20); look(); })"
    assert browser.run("document.querySelector('main').hidden") is True
    typed = "document.getElementById('key').value = KEY; document.querySelector('form').requestSubmit()"
    said = "document.getElementById('status').textContent"
    browser.run(typed.replace("KEY", "'wrong'"))
    browser.run(wait.replace("CONDITION", f"{said} === 'This key is not valid.'"))
    browser.run(typed.replace("KEY", "'key-of-alice'"))
    browser.run(wait.replace("CONDITION", "!document.querySelector('main').hidden"))

    rows = browser.run("[...document.querySelectorAll('table')].map(t => t.innerText)")
    assert rows[0].startswith("Requests per minute") and "this minute" in rows[0]
    assert "95th percentile" in rows[1] and "404 <b>Not</b> Found" in rows[2]
    assert "conversation-3\t340" in rows[3] and "uncounted\tnot counted" in rows[3]
    assert browser.run("document.querySelectorAll('main rect').length") == 5 + 3 + 2 + 5
    assert browser.run("document.documentElement.scrollWidth <= innerWidth") is True, "no sideways scrolling"
    wide = "Math.max(...[...document.querySelectorAll('#requests rect')].map(r => r.getBoundingClientRect().width))"
    assert browser.run(wide) > 50

    browser("Accessibility.enable")
    nodes = browser("Accessibility.getFullAXTree")["nodes"]
    read = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if "role" in node}
    for name in ("Requests per minute", "Response time", "Most common errors", "Tokens by conversation"):
        assert ("table", name) in read
    assert ("rowheader", "95th percentile") in read and ("textbox", "API key") in read and ("button", "Show") in read

    browser.run(typed.replace("KEY", "'key-of-bob'"))
    browser.run(wait.replace("CONDITION", "document.querySelector('#tokens').innerText.includes('none')"))
    troubles = [
        event for event in browser.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")
    ]
    assert all("401" in json.dumps(trouble) or "favicon" in json.dumps(trouble) for trouble in troubles), troubles
    browser.run(typed.replace("KEY", "'key-of-alice'"))
    browser.run(wait.replace("CONDITION", "document.querySelector('#tokens').innerText.includes('uncounted')"))
    for width in (360, 1100):
        for dark in (False, True):
            browser.resize(width, dark=dark)
            assert browser.too_faint() == []
            browser.picture(f"metrics-{width}{'-dark' if dark else ''}")


# ---------------------------------------------------------------- the script


def test_the_script_plays_a_transcript(capsys: pytest.CaptureFixture[str]) -> None:
    assert exercise.main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and '"minutes_ago":4' in out and "http_requests_total" in out
