"""19.4.3: the boundaries of both issues, claims under concurrency, retries, and a webhook that holds up no chat."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import exercise_3_19_4_solution as exercise
import httpx
import pytest
from exercise_3_19_4_solution import Alert, AlertCourier, AlertMonitor, checked_webhook, create_app
from openai import AsyncOpenAI

from shared.config import Settings, SettingsError
from shared.offline import Fault, OfflineModel
from tests.kit.fakes import FakeClock

SETTINGS = Settings(openai_api_key="sk-test", api_keys=("key-of-alice",))
KEY = {"X-API-Key": "key-of-alice"}
URL = "https://hooks.example/services/T0/secret-of-the-hook"


@pytest.fixture
def monitor(clock: FakeClock) -> AlertMonitor:
    return AlertMonitor(clock=clock)


def play(monitor: AlertMonitor, outcomes: str, took_s: float = 0.0) -> list[Alert]:
    """Let requests end one after another: `.` works, `x` fails, `-` counts neither way."""
    alerts: list[Alert] = []
    for outcome in outcomes:
        request = monitor.start()
        monitor._clock.now += took_s  # type: ignore[attr-defined]
        alerts += monitor.finish(request, {".": False, "x": True, "-": None}[outcome])
    return alerts


def heard(monitor: AlertMonitor, alerts: Any) -> list[str]:
    """Report alerts as sent; return what they say in short."""
    for alert in alerts:
        monitor.sent(alert)
    return [f"{alert.issue} {alert.state}" for alert in alerts]


# ---------------------------------------------------------------- when an alert is due


def test_three_failures_of_ten_are_an_issue_and_two_are_not(monitor: AlertMonitor) -> None:
    assert play(monitor, "xx........") == []
    assert play(monitor, "..........xx") == []
    (alert,) = play(monitor, "x")
    assert alert == Alert("error_rate", "firing", 0.3, 0.2, 10)
    assert str(alert) == "alert: error_rate is firing: 30% of the last 10 requests failed (limit 20%)"


def test_fewer_than_ten_requests_are_silent(monitor: AlertMonitor) -> None:
    assert play(monitor, "x" * 9, took_s=60) == []
    assert monitor.report()["error_rate"] == {
        "value": None, "limit": 0.2, "samples": 9, "firing": False, "suppressed": 0,
    }  # fmt: skip
    assert heard(monitor, play(monitor, "x", took_s=60)) == ["error_rate firing", "response_time firing"]
    assert monitor.report()["error_rate"]["value"] == 1.0
    assert monitor.report()["error_rate"]["firing"] is True


def test_only_the_last_ten_count(monitor: AlertMonitor) -> None:
    assert play(monitor, "." * 100 + "xx") == []
    assert [alert.value for alert in play(monitor, "x")] == [0.3]
    assert play(monitor, "." * 8 + "x") == []


def test_requests_older_than_fifteen_minutes_are_silent(monitor: AlertMonitor, clock: FakeClock) -> None:
    play(monitor, "." * 5 + "xx")
    clock.now += 900
    assert [alert.value for alert in play(monitor, "x..")] == [0.3]
    other = AlertMonitor(clock=clock)
    play(other, "." * 5 + "xx")
    clock.now += 900.001
    assert play(other, "x..") == []
    assert other.report()["error_rate"]["samples"] == 3


def test_a_refused_request_counts_neither_way(monitor: AlertMonitor) -> None:
    assert play(monitor, "xx-------" * 20) != []
    fresh = AlertMonitor(clock=monitor._clock)
    assert play(fresh, "xxx------" + "......") == []
    assert [alert.value for alert in play(fresh, "-.-")] == [0.3]


def test_a_mean_of_exactly_ten_seconds_is_no_issue(monitor: AlertMonitor, clock: FakeClock) -> None:
    assert play(monitor, "." * 10, took_s=10.0) == []
    (alert,) = play(monitor, ".", took_s=10.001)
    assert (alert.issue, alert.limit, alert.samples, alert.value) == ("response_time", 10.0, 10, 10.0001)
    assert str(alert).endswith("is firing: the last 10 requests took 10.0 s on average (limit 10.0 s)")


def test_a_slow_one_among_quick_ones_is_averaged(monitor: AlertMonitor) -> None:
    assert play(monitor, ".........", took_s=1.0) == []
    assert play(monitor, ".", took_s=91.0) == []
    assert [alert.value for alert in play(monitor, ".", took_s=2.0)] == [10.1]


def test_requests_that_hang_count_before_they_end(monitor: AlertMonitor, clock: FakeClock) -> None:
    requests = [monitor.start() for _ in range(10)]
    clock.now += 10.0
    assert monitor.check() == []
    clock.now += 0.5
    (alert,) = monitor.check()
    assert (alert.issue, alert.value, alert.samples) == ("response_time", 10.5, 10)
    heard(monitor, [alert])
    for request in requests:
        assert monitor.finish(request, True) != [alert]
    assert monitor.report()["response_time"]["value"] == 10.5


def test_one_that_hangs_is_noticed_by_those_that_pass_it(monitor: AlertMonitor, clock: FakeClock) -> None:
    play(monitor, "." * 9)
    monitor.start()
    clock.now += 100
    assert play(monitor, ".") == []
    clock.now += 0.1
    assert [alert.value for alert in play(monitor, ".")] == [pytest.approx(10.01)]


def test_the_newest_ended_requests_fill_up_beside_those_that_hang(monitor: AlertMonitor, clock: FakeClock) -> None:
    play(monitor, ".", took_s=60.0)
    monitor.start()
    play(monitor, "." * 9)
    clock.now += 101
    assert [alert.value for alert in monitor.check()] == [10.1]


def test_against_brute_force_over_random_histories(clock: FakeClock) -> None:
    chance = random.Random(4)
    for _ in range(200):
        monitor = AlertMonitor(clock=clock, cooldown_s=0, max_age_s=50)
        done: list[tuple[float, float, bool]] = []
        for _ in range(60):
            took_s, failed = chance.choice((0.0, 1.0, 8.0, 30.0)), chance.random() < 0.25
            alerts = play(monitor, "x" if failed else ".", took_s)
            done.append((clock.now, took_s, failed))
            fresh = [(took, bad) for ended, took, bad in done[-10:] if clock.now - ended <= 50]
            expected = []
            if len(fresh) == 10 and sum(bad for _, bad in fresh) > 2:
                expected.append("error_rate")
            if len(fresh) == 10 and sum(took for took, _ in fresh) > 100:
                expected.append("response_time")
            assert [alert.issue for alert in alerts if alert.state == "firing"] == expected


# ---------------------------------------------------------------- how often


def test_one_alert_per_five_minutes_and_the_next_says_how_many_were_suppressed(
    monitor: AlertMonitor, clock: FakeClock
) -> None:
    assert heard(monitor, play(monitor, "x" * 12)) == ["error_rate firing"]
    clock.now += 299.999
    assert play(monitor, "x") == []
    assert monitor.report()["error_rate"]["suppressed"] == 3
    assert monitor.check() == [] and monitor.report()["error_rate"]["suppressed"] == 3
    clock.now += 0.001
    (alert,) = play(monitor, "x")
    assert alert.suppressed == 3 and str(alert).endswith("; 3 more since the last alert")
    assert monitor.report()["error_rate"]["suppressed"] == 0
    assert play(monitor, "x") == []


def test_a_silence_that_ends_without_traffic_is_noticed_by_check(monitor: AlertMonitor, clock: FakeClock) -> None:
    heard(monitor, play(monitor, "x" * 10))
    clock.now += 300
    assert [alert.state for alert in monitor.check()] == ["firing"]


def test_issues_are_silenced_independently(monitor: AlertMonitor) -> None:
    assert heard(monitor, play(monitor, "x" * 10)) == ["error_rate firing"]
    assert heard(monitor, play(monitor, "x" * 10, took_s=20.0)) == ["response_time firing"]


def test_fifty_concurrent_breaches_claim_one_alert() -> None:
    monitor = AlertMonitor()
    requests = [monitor.start() for _ in range(59)]
    for request in requests[:9]:
        assert not monitor.finish(request, True)
    with ThreadPoolExecutor(50) as pool:
        alerts = [alert for found in pool.map(lambda r: monitor.finish(r, True), requests[9:]) for alert in found]
    assert len(alerts) == 1 and monitor.report()["error_rate"]["suppressed"] == 49


def test_resolved_is_said_once_and_only_after_firing_was_heard(monitor: AlertMonitor, clock: FakeClock) -> None:
    (alert,) = play(monitor, "." * 7 + "xxx")
    assert play(monitor, "." * 10) == [], "nobody has heard that it fires"
    monitor.sent(alert)
    (resolved,) = monitor.check()
    assert (resolved.state, resolved.value) == ("resolved", 0.0)
    monitor.sent(resolved)
    assert play(monitor, "." * 30) == [] and monitor.check() == []
    assert play(monitor, "xxx") == [], "it fires again within five minutes"
    assert play(monitor, "." * 10) == []
    clock.now += 300
    assert [alert.suppressed for alert in play(monitor, "xxx")] == [8]


def test_no_traffic_is_no_reason_to_say_resolved(monitor: AlertMonitor, clock: FakeClock) -> None:
    heard(monitor, play(monitor, "x" * 10))
    clock.now += 901
    assert monitor.check() == []
    assert heard(monitor, play(monitor, "." * 10)) == ["error_rate resolved"]


def test_it_fires_again_after_the_silence_while_already_told(monitor: AlertMonitor, clock: FakeClock) -> None:
    heard(monitor, play(monitor, "x" * 10))
    clock.now += 300
    assert heard(monitor, play(monitor, "x")) == ["error_rate firing"]
    assert heard(monitor, play(monitor, "." * 8)) == ["error_rate resolved"]


# ---------------------------------------------------------------- given back


def test_what_was_not_sent_is_claimed_again_later_and_later_until_it_is_heard(
    monitor: AlertMonitor, clock: FakeClock
) -> None:
    (alert,) = play(monitor, "x" * 10)
    for attempt, wait_s in enumerate((1, 2, 4, 8, 16, 32, 60, 60, 60), 2):
        monitor.give_back(alert)
        clock.now += wait_s - 0.001
        assert monitor.check() == []
        clock.now += 0.001
        (alert,) = monitor.check()
        assert (alert.attempt, alert.state, alert.value) == (attempt, "firing", 1.0)
    monitor.sent(alert)
    assert monitor.check() == []


def test_what_was_not_sent_is_sent_even_when_it_is_over_and_then_resolved(
    monitor: AlertMonitor, clock: FakeClock
) -> None:
    (alert,) = play(monitor, "x" * 10)
    monitor.give_back(alert)
    assert play(monitor, "." * 20) == []
    clock.now += 1
    assert heard(monitor, play(monitor, ".")) == ["error_rate firing"]
    (resolved,) = play(monitor, ".")
    monitor.give_back(resolved)
    clock.now += 1
    assert heard(monitor, monitor.check()) == ["error_rate resolved"]
    assert monitor.check() == []


def test_what_is_given_back_late_is_claimed_by_the_next_request(monitor: AlertMonitor, clock: FakeClock) -> None:
    (alert,) = play(monitor, "x" * 10)
    play(monitor, "." * 20)
    monitor.give_back(alert)
    clock.now += 1
    assert [alert.attempt for alert in play(monitor, ".")] == [2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        alert.state = "resolved"  # type: ignore[misc]


@pytest.mark.anyio
async def test_what_is_due_at_shutdown_is_claimed_then(monitor: AlertMonitor, clock: FakeClock) -> None:
    sent: list[Alert] = []

    async def send(alert: Alert) -> None:
        sent.append(alert)

    async with AlertCourier(monitor, send, every_s=60).running():
        monitor.give_back(*play(monitor, "x" * 10))
        clock.now += 1
    assert [alert.attempt for alert in sent] == [2]


def test_breaches_while_nobody_could_be_told_are_counted(monitor: AlertMonitor, clock: FakeClock) -> None:
    (alert,) = play(monitor, "x" * 10)
    monitor.give_back(alert)
    play(monitor, "xxx")
    clock.now += 1
    heard(monitor, play(monitor, "x"))
    assert monitor.report()["error_rate"]["suppressed"] == 4


def test_waiting_forever_does_not_overflow(monitor: AlertMonitor) -> None:
    monitor.give_back(Alert("error_rate", "firing", 1.0, 0.2, 10, attempt=100_000))
    assert monitor.check() == []


def test_memory_is_bounded(monitor: AlertMonitor) -> None:
    play(monitor, ".x" * 5000)
    assert (len(monitor._done), len(monitor._under_way)) == (10, 0)
    assert monitor._failed == 5 and monitor._took_us == 0


# ---------------------------------------------------------------- the courier


@pytest.mark.anyio
async def test_the_courier_sends_in_order_and_reports_what_became_of_it(
    monitor: AlertMonitor, clock: FakeClock
) -> None:
    sent: list[Alert] = []

    async def send(alert: Alert) -> None:
        sent.append(alert)
        if alert.attempt == 1:
            raise OSError("no way out")

    courier = AlertCourier(monitor, send, every_s=0.001)
    async with courier.running():
        courier.put(play(monitor, "x" * 10))
        await courier._waiting.join()
        clock.now += 1
        while len(sent) < 2:  # noqa: ASYNC110  (the courier's own pace)
            await asyncio.sleep(0.001)
    assert [alert.attempt for alert in sent] == [1, 2] and monitor.report()["error_rate"]["firing"]


@pytest.mark.anyio
async def test_what_waits_at_shutdown_is_sent_within_a_deadline(
    monitor: AlertMonitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []

    async def slow(alert: Alert) -> None:
        await asyncio.sleep(0.01)
        sent.append(alert.issue)

    courier = AlertCourier(monitor, slow, every_s=60)
    async with courier.running():
        courier.put(play(monitor, "x" * 10, took_s=20.0))
    assert sent == ["error_rate", "response_time"]

    async def never(alert: Alert) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(exercise, "FLUSH_S", 0.01)
    courier = AlertCourier(AlertMonitor(clock=FakeClock()), never)
    started = time.monotonic()
    async with courier.running():
        courier.put([Alert("error_rate", "firing", 1.0, 0.2, 10)])
    assert time.monotonic() - started < 5


@pytest.mark.anyio
async def test_a_send_that_hangs_is_given_up(monitor: AlertMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exercise, "SEND_S", 0.01)

    async def never(alert: Alert) -> None:
        await asyncio.Event().wait()

    courier = AlertCourier(monitor, never)
    async with courier.running():
        courier.put(play(monitor, "x" * 10))
        await courier._waiting.join()
    assert monitor._issues["error_rate"].unheard is not None


@pytest.mark.anyio
async def test_shutting_down_waits_five_seconds_at_most(monitor: AlertMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    wait_for = asyncio.wait_for

    async def noted(work: Any, limit_s: float) -> Any:
        given.append(limit_s)
        return await wait_for(work, limit_s)

    async def send(alert: Alert) -> None:
        pass

    monkeypatch.setattr(asyncio, "wait_for", noted)
    async with AlertCourier(monitor, send).running():
        pass
    assert given == [5.0]


# ---------------------------------------------------------------- the webhook


@pytest.mark.parametrize(
    "url",
    ["https://hooks.example/x", "http://127.0.0.1:9/x", "http://localhost/x", "http://[::1]:9/x", "http://127.1.2.3"],
)
def test_https_and_loopback_are_taken(url: str) -> None:
    assert checked_webhook(url) == url


def test_no_url_is_no_webhook() -> None:
    assert checked_webhook("") is None


@pytest.mark.parametrize(
    "url", ["http://hooks.example/secret", "ftp://x/secret", "secret", "https://", "http://10.0.0.1/secret", "http://[::2]/secret",
            "http://1.example/secret", "//hooks.example/secret", "http://[secret"]
)  # fmt: skip
def test_a_webhook_that_others_could_listen_to_is_refused_without_naming_it(url: str) -> None:
    with pytest.raises(SettingsError, match="ALERT_WEBHOOK_URL") as refused:
        checked_webhook(url)
    assert "secret" not in str(refused.value)


class Hook(httpx.AsyncBaseTransport):
    """A webhook that remembers what it got."""

    def __init__(self, *statuses: int) -> None:
        self.statuses, self.got = list(statuses), []  # type: ignore[var-annotated]
        self.news = asyncio.Event()
        self.free = asyncio.Event()
        self.free.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        self.news.set()
        await self.free.wait()
        return httpx.Response(self.statuses.pop(0) if self.statuses else 200, text="ok")


class Served:
    def __init__(self, http: httpx.AsyncClient, model: OfflineModel) -> None:
        self.http, self.model = http, model

    async def chat(self, outcomes: str) -> list[int]:
        statuses = []
        for outcome in outcomes:
            if outcome == "x":
                self.model.next(Fault(status=500))
            response = await self.http.post("/v1/chat", json={"message": "canary-text"}, headers=KEY)
            statuses.append(response.status_code)
        return statuses

    async def alerts(self) -> Any:
        return (await self.http.get("/alerts", headers=KEY)).json()


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
            yield Served(http, model)


@pytest.mark.anyio
async def test_failing_chats_raise_one_alert_that_slack_can_read(caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook()
    caplog.set_level("INFO")
    async with served(webhook_url=URL, transport=hook) as app:
        assert await app.chat("." * 7 + "xxxxx") == [200] * 7 + [502] * 5
        await asyncio.wait_for(hook.news.wait(), 5)
        state = await app.alerts()
    (request,) = hook.got
    assert set(request.extensions["timeout"].values()) == {10.0}
    text = "alert: error_rate is firing: 30% of the last 10 requests failed (limit 20%)"
    assert json.loads(request.content) == {"text": text} and str(request.url) == URL and request.method == "POST"
    assert caplog.messages.count(text) == 1
    assert "secret-of-the-hook" not in caplog.text and "canary-text" not in caplog.text
    assert state["scope"] == "process" and [alert["issue"] for alert in state["recent"]] == ["error_rate"]
    assert state["issues"]["error_rate"] == {
        "value": 0.5, "limit": 0.2, "samples": 10, "firing": True, "suppressed": 2,
    }  # fmt: skip


@pytest.mark.anyio
async def test_alerts_are_for_those_with_a_key() -> None:
    async with served() as app:
        assert (await app.http.get("/alerts")).status_code == 401


@pytest.mark.anyio
async def test_wrong_keys_bad_bodies_and_other_paths_hide_no_outage() -> None:
    async with served() as app:
        await app.chat("." * 7 + "xx")
        for _ in range(20):
            await app.http.post("/v1/chat", json={"message": "x"})
            await app.http.post("/v1/chat", json={}, headers=KEY)
            await app.http.get("/health")
        await app.chat("x")
        assert (await app.alerts())["issues"]["error_rate"]["value"] == 0.3


@pytest.mark.anyio
async def test_an_exception_counts_as_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(exercise, "ask", broken)
    async with served() as app:
        assert await app.chat("." * 10) == [500] * 10
        assert (await app.alerts())["issues"]["error_rate"]["value"] == 1.0


@pytest.mark.anyio
async def test_a_client_that_leaves_counts_with_its_time_and_not_as_a_failure(clock: FakeClock) -> None:
    monitor = AlertMonitor(clock=clock, window=1)
    async with served(monitor=monitor) as app:
        app.model.next(Fault(hang=True))
        chat = asyncio.create_task(app.chat("."))
        while not app.model.calls:  # noqa: ASYNC110  (the stand-in tells nobody)
            await asyncio.sleep(0.001)
        clock.now += 20
        chat.cancel()
        with pytest.raises(asyncio.CancelledError):
            await chat
        issues = (await app.alerts())["issues"]
    assert (issues["response_time"]["value"], issues["error_rate"]["value"]) == (20.0, 0.0)


@pytest.mark.anyio
async def test_a_webhook_that_hangs_does_not_hold_up_a_chat() -> None:
    hook = Hook()
    hook.free.clear()
    async with served(webhook_url=URL, transport=hook) as app:
        await app.chat("x" * 10)
        await asyncio.wait_for(hook.news.wait(), 5)
        assert await asyncio.wait_for(app.chat("." * 5), 5) == [200] * 5
        hook.free.set()


@pytest.mark.anyio
async def test_a_webhook_that_refuses_is_asked_again_and_the_log_says_it_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = Hook(503, 302)
    monkeypatch.setattr(AlertCourier.__init__, "__kwdefaults__", {"every_s": 0.001})
    async with served(webhook_url=URL, transport=hook, monitor=AlertMonitor(clock=clock)) as app:
        await app.chat("x" * 10)
        while len(hook.got) < 3:
            clock.now += 2
            await asyncio.sleep(0.005)
    assert sum("is firing" in message for message in caplog.messages) == 1
    assert sum("could not be sent" in message for message in caplog.messages) == 2
    assert "secret-of-the-hook" not in caplog.text


@pytest.mark.anyio
async def test_the_variable_names_the_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", "http://hooks.example/x")
    with pytest.raises(SettingsError):
        create_app(SETTINGS)
    monkeypatch.setenv("ALERT_WEBHOOK_URL", URL)
    hook = Hook()
    async with served(transport=hook) as app:
        await app.chat("x" * 10)
        await asyncio.wait_for(hook.news.wait(), 5)


# ---------------------------------------------------------------- the script


def test_the_script_plays_a_transcript(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert exercise.main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and '"suppressed":2' in out
    assert [message for message in caplog.messages if message.startswith("alert")] == [
        "alert: error_rate is firing: 30% of the last 10 requests failed (limit 20%)"
    ]


# ---------------------------------------------------------------- what a healthy request costs


class Watched(AlertMonitor):
    """Counts how often it judges; a healthy request goes without."""

    judged = 0

    def _judge(self, now: float, *, counting: bool) -> list[Alert]:
        self.judged += 1
        return super()._judge(now, counting=counting)


@pytest.mark.parametrize(
    ("outcomes", "took_s"),
    [("." * 40, 6.0), ("xx........xx", 0.0), ("." * 10, 10.0), ("x", 0.0), (".", 100.0)],
    ids=["healthy", "exactly 20 %", "exactly 10 s", "one failure", "100 s over ten"],
)
def test_edge_what_is_within_the_limits_is_not_judged(outcomes: str, took_s: float, clock: FakeClock) -> None:
    monitor = Watched(clock=clock)
    assert play(monitor, outcomes, took_s) == []
    assert monitor.judged == 0


@pytest.mark.parametrize(("age_s", "judged"), [(0.0, 0), (10.0, 0), (10.1, 1)])
def test_edge_the_oldest_request_under_way_is_looked_at_once_it_is_too_old(
    age_s: float, judged: int, clock: FakeClock
) -> None:
    monitor = Watched(clock=clock)
    monitor.start()
    clock.now += age_s
    play(monitor, ".")
    assert monitor.judged == judged


def test_edge_a_microsecond_above_the_limit_is_an_issue(monitor: AlertMonitor, clock: FakeClock) -> None:
    clock.now = 0.0
    assert play(monitor, "." * 9, took_s=10.0) == []
    assert heard(monitor, play(monitor, ".", took_s=10.0001)) == ["response_time firing"]


def test_what_is_settled_is_judged_no_more(clock: FakeClock) -> None:
    monitor = Watched(clock=clock)
    assert heard(monitor, play(monitor, "x" * 10)) == ["error_rate firing"]
    assert heard(monitor, play(monitor, "." * 10)) == ["error_rate resolved"]
    play(monitor, ".")
    before = monitor.judged
    play(monitor, "." * 5)
    assert monitor.judged == before


# ---------------------------------------------------------------- what a report says


def test_a_report_is_of_now(monitor: AlertMonitor, clock: FakeClock) -> None:
    play(monitor, "." * 10, took_s=1.0)
    assert monitor.report()["response_time"]["value"] == 1.0
    clock.now += monitor.max_age_s + 10
    assert monitor.report()["response_time"]["samples"] == 0


def test_a_report_has_whole_microseconds(monitor: AlertMonitor, clock: FakeClock) -> None:
    clock.now = 0.0
    play(monitor, ".", took_s=1e-6)
    play(monitor, "." * 9)
    assert monitor.report()["response_time"]["value"] == 0.0


def test_edge_requests_under_way_for_exactly_the_limit_do_not_hang_yet(monitor: AlertMonitor, clock: FakeClock) -> None:
    for _ in range(10):
        monitor.start()
    clock.now += 10
    assert monitor.report()["response_time"]["samples"] == 0
    clock.now += 1
    assert monitor.report()["response_time"]["samples"] == 10


def test_edge_a_window_of_one_request(clock: FakeClock) -> None:
    (alert,) = play(AlertMonitor(window=1, clock=clock), "x")
    assert (alert.value, alert.samples) == (1.0, 1)


def test_only_breaches_are_suppressed(monitor: AlertMonitor, clock: FakeClock) -> None:
    (alert,) = play(monitor, ".......xxx")
    monitor.give_back(alert)
    monitor.check()
    assert monitor.report()["error_rate"]["suppressed"] == 0
    play(monitor, "." * 7)  # the three failures are still among the last ten
    assert monitor.report()["error_rate"]["suppressed"] == 7
    play(monitor, "." * 5)
    assert monitor.report()["error_rate"]["suppressed"] == 7


@pytest.mark.anyio
async def test_the_courier_looks_every_second_and_leaves_no_task(monitor: AlertMonitor) -> None:
    async def send(alert: Alert) -> None:
        pass

    courier = AlertCourier(monitor, send)
    assert courier._every_s == 1.0
    before = asyncio.all_tasks()
    async with courier.running():
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


# ---------------------------------------------------------------- what a middleware counts, what a webhook is left with


@pytest.mark.anyio
@pytest.mark.parametrize(("status", "samples"), [(200, 1), (399, 1), (400, 0), (498, 0), (499, 1), (500, 1)])
async def test_edge_what_the_client_did_wrong_counts_neither_way(
    status: int, samples: int, monitor: AlertMonitor
) -> None:
    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def nothing(*_: Any) -> Any:
        pass

    middleware = exercise.AlertMiddleware(inner, monitor=monitor, courier=AlertCourier(monitor, nothing))
    await middleware({"type": "http", "method": "POST", "path": "/v1/chat", "headers": []}, nothing, nothing)
    assert monitor.report()["error_rate"]["samples"] == samples


@pytest.mark.anyio
async def test_a_webhooks_answer_is_closed_unread() -> None:
    class Answer(httpx.AsyncByteStream):
        closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            raise AssertionError("nobody reads it")
            yield b""

        async def aclose(self) -> None:
            self.closed = True

    class Endless(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=answer)

    answer = Answer()
    await exercise.post(Endless(), URL, Alert("error_rate", "firing", 0.3, 0.2, 10))
    assert answer.closed


def test_the_demo_leaves_a_real_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(exercise, "create_app", lambda *given, **named: made.append((given, named)))
    exercise.failing_on_demand(SETTINGS)
    assert made == [((SETTINGS,), {})]
