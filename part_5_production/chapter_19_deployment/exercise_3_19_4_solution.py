"""Exercise 3 (19.4): send an alert when requests fail or take too long, and not a hundred of them.

The book asks for an alert when more than 20 % of the last 10 requests failed, one when the average response time is
above 10 seconds, and no more than one alert per 5 minutes for the same issue. Notice:

* Claim, then send. Who marks an alert as sent once a slow webhook has answered lets every request in between send it.
* A failed send gives the claim back and is tried again, later and later: networks often fail together with the rest.
* A request that hangs never ends, so it is counted while it runs. 4xx are the caller's doing and count neither way:
  a client with a wrong key could otherwise hide an outage behind thousands of quick answers.
* Ten requests are needed, none older than 15 minutes; one failure at night is not "100 %".
* Alerts carry numbers and never a message's text, and the webhook's URL, a secret, is never logged.

Run it:    python exercise_3_19_4_solution.py             (--serve keeps it up; ALERT_WEBHOOK_URL: Slack's, for one)
Check it:  make check EX=19.4.3                           (MINE=your_file.py checks yours)

Limit: one process. Four workers have four windows, and may send four alerts; then an alert manager has to merge them.
"""

import asyncio
import contextlib
import dataclasses
import ipaddress
import itertools
import logging
import threading
import time
import urllib.parse
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings, SettingsError, environment

if TYPE_CHECKING:
    import httpx
    from openai import AsyncOpenAI

__all__ = ["Alert", "AlertCourier", "AlertMiddleware", "AlertMonitor"]

WINDOW = 10  # requests
ERROR_LIMIT = 0.2  # strictly more than this is an issue: 3 of 10
MEAN_LIMIT_S = 10.0
COOLDOWN_S = 300.0
MAX_AGE_S = 900.0  # older requests say nothing about now
RETRY_S = 60.0  # at most this long between two attempts to send; the first retry comes after a second
SEND_S = 10.0
FLUSH_S = 5.0  # at shutdown
CLIENT_LEFT = 499

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """What is sent: which issue, whether it is "firing" or "resolved", the measured value and its limit.

    `suppressed` counts the requests that would have sent this alert during the silence before it.
    """

    issue: str
    state: str
    value: float
    limit: float
    samples: int
    suppressed: int = 0
    attempt: int = 1

    def __str__(self) -> str:
        if self.issue == "error_rate":
            measured = f"{self.value:.0%} of the last {self.samples} requests failed (limit {self.limit:.0%})"
        else:
            measured = f"the last {self.samples} requests took {self.value:.1f} s on average (limit {self.limit:.1f} s)"
        more = f"; {self.suppressed} more since the last alert" if self.suppressed else ""
        return f"alert: {self.issue} is {self.state}: {measured}{more}"


@dataclass
class _Issue:
    limit: float
    value: float = 0.0
    samples: int = 0
    quiet_until: float = float("-inf")
    suppressed: int = 0
    told: bool = False  # somebody has heard that it fires
    unheard: Alert | None = None  # given back
    retry_at: float = 0.0


class AlertMonitor:
    """Watches the last `window` requests and claims alerts; who gets one has to report `sent` or `give_back`.

    A request costs the same at any rate, and memory is bounded by the window and the requests under way. Durations are
    whole microseconds, so sums stay exact. Safe to call from threads: a claim is given to one caller only.
    """

    def __init__(
        self,
        *,
        window: int = WINDOW,
        error_limit: float = ERROR_LIMIT,
        mean_limit_s: float = MEAN_LIMIT_S,
        cooldown_s: float = COOLDOWN_S,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.window, self.cooldown_s, self.max_age_s = window, cooldown_s, max_age_s
        self.error_limit, self.mean_limit_s = error_limit, mean_limit_s
        self._clock, self._lock, self._ids = clock, threading.Lock(), itertools.count()
        self._under_way: dict[int, float] = {}  # started at; the oldest comes first
        self._done: deque[tuple[float, int, bool]] = deque(maxlen=window)  # ended at, microseconds, failed
        self._failed, self._took_us = 0, 0  # sums over _done
        self._issues = {"error_rate": _Issue(error_limit), "response_time": _Issue(mean_limit_s)}
        self._unsettled = False  # an issue has been told or waits to be heard

    def start(self) -> int:
        """Note that a request has begun; returns what `finish` wants."""
        request = next(self._ids)
        self._under_way[request] = self._clock()
        return request

    def finish(self, request: int, failed: bool | None) -> Sequence[Alert]:
        """Note how a request ended (None: it counts neither way); returns the alerts that the caller has to send."""
        with self._lock:
            now = self._clock()
            took_us = round((now - self._under_way.pop(request)) * 1e6)
            if failed is None:
                return ()
            if len(self._done) == self.window:
                _, oldest_us, oldest_failed = self._done[0]
                self._failed -= oldest_failed
                self._took_us -= oldest_us
            self._done.append((now, took_us, failed))
            self._failed += failed
            self._took_us += took_us
            suspicious = (
                self._unsettled
                or self._failed / self.window > self.error_limit
                or self._took_us / 1e6 / self.window > self.mean_limit_s
                or (self._under_way and now - next(iter(self._under_way.values())) > self.mean_limit_s)
            )
            return self._judge(now, counting=True) if suspicious else ()

    def check(self) -> Sequence[Alert]:
        """Look at requests that hang, at silences that are over and at what waits to be sent again."""
        with self._lock:
            return self._judge(self._clock(), counting=False)

    def sent(self, alert: Alert) -> None:
        """Note that an alert was heard."""
        with self._lock:
            self._issues[alert.issue].told = alert.state == "firing"
            self._unsettled = True

    def give_back(self, alert: Alert) -> None:
        """Note that an alert could not be sent: it is claimed again in 1, 2, 4, ... 60 seconds, until it is heard."""
        with self._lock:
            issue = self._issues[alert.issue]
            issue.unheard = alert
            issue.retry_at = self._clock() + min(RETRY_S, 2.0 ** min(alert.attempt - 1, 10))
            self._unsettled = True

    def report(self) -> dict[str, dict[str, Any]]:
        """Say where each issue stands; `value` is None while there are too few requests to tell."""
        with self._lock:
            self._measure(self._clock())
            return {
                name: {
                    "value": round(issue.value, 6) if issue.samples >= self.window else None,
                    "limit": issue.limit,
                    "samples": issue.samples,
                    "firing": issue.told,
                    "suppressed": issue.suppressed,
                }
                for name, issue in self._issues.items()
            }

    def _measure(self, now: float) -> None:
        recent = [(took_us, failed) for ended, took_us, failed in self._done if now - ended <= self.max_age_s]
        ages = [now - began for began in itertools.islice(self._under_way.values(), self.window)]
        hanging = [round(age * 1e6) for age in ages if age > self.mean_limit_s]
        times_us = (hanging + [took_us for took_us, _ in reversed(recent)])[: self.window]
        rate, mean = self._issues.values()
        rate.samples, mean.samples = len(recent), len(times_us)
        rate.value = sum(failed for _, failed in recent) / max(1, len(recent))
        mean.value = sum(times_us) / 1e6 / max(1, len(times_us))

    def _judge(self, now: float, *, counting: bool) -> list[Alert]:
        self._measure(now)
        alerts = []
        for name, issue in self._issues.items():
            firing = issue.samples >= self.window and issue.value > issue.limit
            if issue.unheard:
                issue.suppressed += firing and counting
                if now >= issue.retry_at:
                    alerts.append(dataclasses.replace(issue.unheard, attempt=issue.unheard.attempt + 1))
                    issue.unheard = None
            elif firing and now < issue.quiet_until:
                issue.suppressed += counting
            elif firing or (issue.told and issue.samples >= self.window):
                state = "firing" if firing else "resolved"
                alerts.append(Alert(name, state, issue.value, issue.limit, issue.samples, issue.suppressed))
                issue.suppressed, issue.told = 0, firing and issue.told
                if firing:
                    issue.quiet_until = now + self.cooldown_s
        self._unsettled = any(issue.told or issue.unheard for issue in self._issues.values())
        return alerts


class AlertCourier:
    """Sends alerts one after another, away from the requests; what cannot be sent goes back to the monitor."""

    def __init__(
        self, monitor: AlertMonitor, send: Callable[[Alert], Awaitable[None]], *, every_s: float = 1.0
    ) -> None:
        self._monitor, self._send, self._every_s = monitor, send, every_s
        self._waiting: asyncio.Queue[Alert] = asyncio.Queue()  # the monitor claims at most one per issue at a time

    def put(self, alerts: Iterable[Alert]) -> None:
        """Hand over what was claimed; costs the caller nothing."""
        for alert in alerts:
            self._waiting.put_nowait(alert)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver in the background; at the end, what still waits gets `FLUSH_S` seconds to be sent."""
        tasks = [asyncio.create_task(self._deliver()), asyncio.create_task(self._check())]
        try:
            yield
        finally:
            self.put(self._monitor.check())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._waiting.join(), FLUSH_S)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            self.put(self._monitor.check())

    async def _deliver(self) -> None:
        while True:
            alert = await self._waiting.get()
            try:
                await asyncio.wait_for(self._send(alert), SEND_S)
            except Exception:
                log.exception("the alert on %s could not be sent, attempt %d", alert.issue, alert.attempt)
                self._monitor.give_back(alert)
            else:
                self._monitor.sent(alert)
            finally:
                self._waiting.task_done()


class AlertMiddleware:
    """Reports each request to `path` to the monitor, from its first to its last byte; answers are never held up."""

    def __init__(self, app: ASGIApp, *, monitor: AlertMonitor, courier: AlertCourier, path: str = "/v1/chat") -> None:
        self.app, self._monitor, self._courier, self._path = app, monitor, courier, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self.app(scope, receive, send)
            return
        status = CLIENT_LEFT

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        request = self._monitor.start()
        try:
            await self.app(scope, receive, watch)
        except Exception:
            status = 500
            raise
        finally:
            counts = status < 400 or status >= CLIENT_LEFT
            self._courier.put(self._monitor.finish(request, status >= 500 if counts else None))


def checked_webhook(url: str) -> str | None:
    """Return the webhook's URL, None for an empty one; raises SettingsError for one that others could listen to."""
    if not url:
        return None
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        loopback = host == "localhost" or (host[:1] in "1:" and ipaddress.ip_address(host).is_loopback)
        if host and (parts.scheme == "https" or (parts.scheme == "http" and loopback)):
            return url
    raise SettingsError(["ALERT_WEBHOOK_URL must be an https:// URL (http:// only on this machine)"])


async def post(transport: "httpx.AsyncBaseTransport", url: str, alert: Alert) -> None:
    """Send an alert as Slack and those who imitate it take it: `{"text": ...}`.

    Straight through the transport: httpx's client would log the URL. Redirects are not followed.
    """
    import httpx

    limits = httpx.Timeout(SEND_S).as_dict()
    request = httpx.Request("POST", url, json={"text": str(alert)}, extensions={"timeout": limits})
    response = await transport.handle_async_request(request)
    await response.aclose()
    if not response.is_success:
        raise ConnectionError(f"the webhook answered {response.status_code}")


def create_app(
    settings: Settings | None = None,
    *,
    client: "AsyncOpenAI | None" = None,
    monitor: AlertMonitor | None = None,
    webhook_url: str | None = None,
    transport: "httpx.AsyncBaseTransport | None" = None,
) -> FastAPI:
    """Wire the monitor around the chat. `webhook_url` defaults to the variable ALERT_WEBHOOK_URL, and that to none."""
    monitor = monitor or AlertMonitor()
    webhook = checked_webhook(
        environment().get("ALERT_WEBHOOK_URL", "").strip() if webhook_url is None else webhook_url
    )
    recent: deque[Alert] = deque(maxlen=20)

    way: list[httpx.AsyncBaseTransport] = []  # to the webhook, while the app is up

    async def send(alert: Alert) -> None:
        if alert.attempt == 1:
            log.warning("%s", alert)
            recent.append(alert)
        if webhook:
            await post(way[0], webhook, alert)

    courier = AlertCourier(monitor, send)

    @contextlib.asynccontextmanager
    async def watching(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if webhook:
                import httpx

                way[:] = [await stack.enter_async_context(transport or httpx.AsyncHTTPTransport())]
            await stack.enter_async_context(courier.running())
            yield

    app = base_app(settings, client, lifespan=watching)
    app.add_middleware(AlertMiddleware, monitor=monitor, courier=courier)

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.get("/alerts")
    async def alerts(caller: Caller) -> dict[str, Any]:
        return {"scope": "process", "issues": monitor.report(), "recent": [dataclasses.asdict(a) for a in recent]}

    return app


def failing_on_demand(settings: Settings) -> FastAPI:
    """Make an app whose stand-in model fails when a message asks for it; a real model is left alone."""
    if not settings.offline:
        return create_app(settings)
    import httpx
    from openai import AsyncOpenAI

    from shared.offline import BadRequest, OfflineModel, answer, text_of

    def reply(messages: list[dict[str, Any]]) -> str:
        if "please fail" in text_of(messages[-1]):
            raise BadRequest("told to fail", status=500)
        return answer(messages)

    http_client: Any = httpx.AsyncClient(transport=httpx.ASGITransport(OfflineModel(reply)))
    client = AsyncOpenAI(api_key="offline", base_url="http://stand-in/v1", http_client=http_client, max_retries=0)
    return create_app(settings, client=client)


def main(argv: list[str] | None = None) -> int:
    """Let seven requests succeed and three fail: one alert. Two more failures: none."""
    works, fails = {"message": "What is 6 * 7?"}, {"message": "please fail"}
    steps = [
        demo.Send("POST", "/v1/chat", works, note="seven that work", times=7),
        demo.Send("POST", "/v1/chat", fails, note="two that fail: 20 % are not more than 20 %", times=2),
        demo.Send("POST", "/v1/chat", works, note="one more that works, the tenth"),
        demo.Send("POST", "/v1/chat", fails, note="another failure: 30 %, one alert on standard error"),
        demo.Send("POST", "/v1/chat", fails, note="two more failures: no more alerts", times=2),
        demo.Send("GET", "/alerts", note="what was sent, and what was not"),
    ]
    return demo.run(__doc__, failing_on_demand, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
