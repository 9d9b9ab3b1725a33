"""19.4.3: alerts on the error rate and on the response time, and not too many of them.

Readings accepted: an alert is a log line (or printed line) that says "alert", "error rate", "too many errors" or, as a
warning or with "exceeds", "above" or "too high", "response time", "latency" or "slow"; or an entry more at a GET
endpoint with "alert" in its path. Lines that say resolved, suppressed or skipped are none. An alert may take several
lines. A logger may be called "alerts": what it writes at each failure of several is none. The average may be that of
the last 10 requests, of more, or of all. Below ten requests an app may alert or not. A failure is an answer with a
status of 500 or more.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from shared.offline import BadRequest
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours counts a request that hangs while it runs: a service that answers nobody would otherwise never be slow."
)

BULLET_1 = "19.4.3 bullet 1"
BULLET_2 = "19.4.3 bullet 2"
BULLET_3 = "19.4.3 bullet 3"
ERRORS = "Sends an alert if error rate exceeds 20% in the last 10 requests"
SLOW = "Sends an alert if average response time exceeds 10 seconds"
RARELY = "Rate-limits alerts (no more than 1 alert per 5 minutes for the same issue)"

WRITTEN_S = 0.6  # an alert that is expected is there long before
SETTLED_S = 0.15  # one that must not come has come by then, if it comes
QUIET_S = 0.03
ALERT = re.compile(r"alert|(error|failure)[ _-]?rate|(too many|more than \d+ ?%).*(error|fail)", re.IGNORECASE)
WARNING = re.compile(r"warn|error|critical|exceed|threshold|above|too (high|long|slow)", re.IGNORECASE)
TOO_SLOW = re.compile(r"response[ _-]?time|latency|slow", re.IGNORECASE)
NO_ALERT = re.compile(
    r"resolved|recover|suppress|skip|cool[ _-]?down|throttl|rate[ _-]?limit|\" \d{3} |HTTP/1", re.IGNORECASE
)


LOGGER = re.compile(  # the name of a logger or of a file, in the usual formats
    r'"(?:logger|name|module|filename|pathname)": ?"[^"]*"|\b[a-z_.]*alert[a-z_.]*(?=\]?(?: -|:| \||\] |\.py))'
)
ROUTINE: WeakKeyDictionary[App, set[str]] = WeakKeyDictionary()  # what an app's logger of alerts writes at each failure


class Alerts:
    """The alerts of an app since this was made."""

    def __init__(self, app: App) -> None:
        self._app, self._skip = app, len(app.output())
        self._listed = self._at_endpoint()

    def count(self) -> int:
        """Wait for an alert until all of it is there; return how many lines (or entries) there are.

        Some look after each request, some once a while: a minute passes before there is said to be none.
        """
        return self._wait(WRITTEN_S) or self._wait(WRITTEN_S, after_s=60)

    def _wait(self, within_s: float, *, after_s: float = 0) -> int:
        if after_s:
            self._app.later(after_s)
            self._app.send("GET", "/openapi.json")  # wakes who sleeps until then
        deadline, found = time.monotonic() + within_s, 0
        while True:
            before, found = found, self._in_log() or self._at_endpoint() - self._listed
            if (found and found == before) or time.monotonic() > deadline:
                return found
            time.sleep(QUIET_S)

    def unexpected(self) -> int:
        """Return how many lines (or entries) there are where none should be."""
        return self._wait(SETTLED_S, after_s=10)

    def text(self) -> str:
        """Return the lines that count as alerts."""
        return " | ".join(self._lines())[:300] or "no alert"

    def _lines(self) -> list[str]:
        lines = self._app.output()[self._skip :].splitlines()
        routine = ROUTINE.get(self._app, set())
        return [x for x in lines if is_alert(x) and not NO_ALERT.search(x) and not (only_named(x) & routine)]

    def _in_log(self) -> int:
        return len(self._lines())

    def _at_endpoint(self) -> int:
        for route in self._app.manner.routes:
            method, path = route.split(" ", 1)
            if method == "GET" and "alert" in path.lower() and "{" not in path:
                answer = self._app.send("GET", path, key=self._app.key).json()
                return max((len(found) for found in lists(answer)), default=0)
        return 0


@functools.lru_cache(maxsize=10_000)  # an output is read again after each request
def is_alert(line: str) -> bool:
    """Tell whether a line says that something is wrong."""
    return bool(ALERT.search(line) or (WARNING.search(line) and TOO_SLOW.search(line)))


def only_named(line: str) -> set[str]:
    """Return the line without its numbers if only the name of its logger makes it look like an alert."""
    return set() if is_alert(LOGGER.sub("", line)) or not is_alert(line) else {re.sub(r"\d+", "0", line)}


def lists(value: Any) -> Iterator[list[Any]]:
    """Return all the lists in an answer, without what is resolved."""
    if isinstance(value, list):
        yield [entry for entry in value if not NO_ALERT.search(json.dumps(entry).replace("suppressed", ""))]
    elif isinstance(value, dict):
        for entry in value.values():
            yield from lists(entry)


def work(app: App, count: int) -> None:
    """Send messages that are answered."""
    for _ in range(count):
        exchange = app.chat()
        if exchange.status != 200:
            raise NotChecked(f"a plain message was answered {exchange.status or 'not at all'}")


@contextmanager
def broken_model(app: App) -> Iterator[None]:
    """Let the model answer with an error."""

    def refuse(messages: Any) -> str:
        raise BadRequest("The stand-in was told to fail.", status=500)

    reply, app.model.model.reply = app.model.model.reply, refuse
    try:
        yield
    finally:
        app.model.model.reply = reply


def fail(app: App, count: int, *, in_one_moment: bool = False) -> Exchange:
    """Send messages at which the model fails, if asked for once it has got all of them; return the last exchange."""
    before = len(app.output())
    with broken_model(app):
        exchanges = app.slow_chats(count, 0) if in_one_moment else app.chats_at_once(count)
    named = Counter(each for line in app.output()[before:].splitlines() for each in only_named(line))
    ROUTINE.setdefault(app, set()).update(line for line, times in named.items() if times > 1)
    for exchange in exchanges:
        if 0 < exchange.status < 500:
            raise NotChecked(f"when the model fails, your app answers {exchange.status}: nothing looks like an error")
    return exchanges[-1]


def slow(app: App, seconds: float, count: int = 10) -> Exchange:
    """Send messages that are answered after so many seconds; return the last exchange."""
    exchanges = app.slow_chats(count, seconds)
    for exchange in exchanges:
        if exchange.status != 200:
            raise NotChecked(f"a model that takes {seconds:.0f} s makes your app answer {exchange.status}")
    return exchanges[-1]


def forget(app: App) -> None:
    """Let no failure be among the last ten requests, and then any silence be over."""
    if app.used:
        work(app, 10)
    app.later(3600)


def calm(app: App) -> Alerts:
    """Let ten requests succeed, an hour pass, and ten more succeed; return the alerts from then on."""
    forget(app)
    work(app, 10)
    time.sleep(QUIET_S)
    return Alerts(app)


def alerted(app: App) -> int:
    """Let six of ten requests fail; return how many lines the alert took. Without an alert nothing can be told."""
    alerts = calm(app)
    fail(app, 6)
    if not (lines := alerts.count()):
        raise NotChecked("6 failures in 10 requests sent no alert that could be limited")
    return lines


def alerts_at_all(app: App) -> None:
    """Raise NotChecked if not even twenty failures make an alert: another check's matter."""
    alerts = calm(app)
    fail(app, 20)
    if not alerts.count():
        raise NotChecked("not even 20 failures in a row sent an alert")


def expect_alert(found: int, seen: Exchange, *, when: str, expected: str) -> None:
    """Raise Missed unless there were lines (or entries) that alert."""
    expect(found > 0, when=when, expected=expected, came="no alert", seen=seen)


def expect_none(alerts: Alerts, seen: Exchange, *, when: str, expected: str = "no alert") -> None:
    """Raise Missed if an alert comes."""
    expect(alerts.unexpected() == 0, when=when, expected=expected, came=alerts.text(), seen=seen)


# ---------------------------------------------------------------- the error rate


@check(
    ERRORS,
    chapter=BULLET_1,
    needs={"clock", "llm", "logs"},
    hints=(
        "When 6 of the last 10 requests have failed, an alert has to be seen, in the log for one.",
        "Remember for each request whether it failed, also where an exception is raised, and look after each request.",
        "recent = deque(maxlen=10); recent.append(failed); if sum(recent) / 10 > 0.2: logger.warning('ALERT ...')",
    ),
)
def error_rate(app: App) -> None:
    alerts = calm(app)
    for _ in range(2):
        fail(app, 2)
        work(app, 1)
    exchange = fail(app, 2)
    expect_alert(
        alerts.count(),
        exchange,
        when="after 20 requests that worked: two failed, one worked, two failed, one worked, two failed",
        expected="an alert: a log line with the word, or an entry at GET /alerts",
    )


@check(
    f"{ERRORS}: 20% are not more than 20%",
    chapter=BULLET_1,
    needs={"clock", "llm", "logs"},
    hints=(
        "Two failures in ten requests are 20%, and that does not exceed 20%.",
        "Compare with > and not with >=.",
        "if errors / 10 > 0.20: send_alert(...)",
    ),
)
def error_rate_limit(app: App) -> None:
    alerts = calm(app)
    exchange = fail(app, 2)
    expect_none(
        alerts,
        exchange,
        when="after 8 requests that worked and 2 at which the model failed",
        expected="no alert: 20% do not exceed 20%",
    )


@check(
    f"{ERRORS}: whatever came before these",
    chapter=BULLET_1,
    needs={"clock", "llm", "logs"},
    hints=(
        "A day of good requests must not hide that the last ten go wrong.",
        "Keep only the last ten: a counter of all requests and all errors gets slower and slower to react.",
        "deque(maxlen=10) forgets by itself.",
    ),
)
def last_ten(app: App) -> None:
    alerts = calm(app)
    work(app, 10)
    exchange = fail(app, 3)
    if not (found := alerts.count()):
        alerts_at_all(app)
    expect_alert(
        found,
        exchange,
        when="after 20 requests that worked and 3 at which the model failed",
        expected="an alert: 3 of the last 10 are 30%",
    )


@check(
    f"{ERRORS}: failures before these are forgotten",
    chapter=BULLET_1,
    needs={"clock", "llm", "logs"},
    hints=(
        "Two failures, ten good requests, one failure: in no ten requests there were more than two.",
        "What happened before the last ten does not count any more.",
        "deque(maxlen=10) forgets by itself; a list needs recent = recent[-10:].",
    ),
)
def forgotten(app: App) -> None:
    calm(app)
    fail(app, 2)
    work(app, 10)
    alerts = Alerts(app)
    exchange = fail(app, 1)
    expect_none(
        alerts,
        exchange,
        when="after 2 failures, 10 requests that worked and 1 more failure",
        expected="no alert: 1 of the last 10 is 10%",
    )


# ---------------------------------------------------------------- the response time


@check(
    SLOW,
    chapter=BULLET_2,
    needs={"clock", "llm", "logs"},
    hints=(
        "When the answers take 25 seconds on average, an alert has to be seen.",
        "Measure from the arrival of a request to its answer, and average over the last requests.",
        "start = time.monotonic(); ...; times.append(time.monotonic() - start); if sum(times) / len(times) > 10: alert",
    ),
)
def response_time(app: App) -> None:
    forget(app)
    alerts = Alerts(app)
    exchange = slow(app, 25)
    expect_alert(
        alerts.count(),
        exchange,
        when="after 10 quick requests and 10 that took 25 s each",
        expected="an alert: a log line with the word, or an entry at GET /alerts",
    )


@check(
    f"{SLOW}: and not before",
    chapter=BULLET_2,
    needs={"clock", "llm", "logs"},
    hints=(
        "Answers that take 8 seconds are slow, but 8 does not exceed 10.",
        "Look at the unit: seconds and not milliseconds, and at the average, not at the sum.",
        "if sum(times) / len(times) > 10.0: send_alert(...)",
    ),
)
def response_time_limit(app: App) -> None:
    forget(app)
    alerts = Alerts(app)
    exchange = slow(app, 8)
    expect_none(alerts, exchange, when="after 10 requests that took 8 s each")


@check(
    f"{SLOW}: one slow answer among ten is no such average",
    chapter=BULLET_2,
    needs={"clock", "llm", "logs"},
    hints=(
        "One answer that took 25 seconds and nine quick ones average to 2.5 seconds.",
        "Compare the average, not the time of the last request, and not the slowest.",
        "average = sum(times) / len(times)",
    ),
)
def average(app: App) -> None:
    alerts = calm(app)
    exchange = slow(app, 25, count=1)
    expect_none(
        alerts,
        exchange,
        when="after 10 quick requests and one that took 25 s",
        expected="no alert: the average is far below 10 s",
    )


# ---------------------------------------------------------------- how often


@check(
    RARELY,
    chapter=BULLET_3,
    needs={"clock", "llm", "logs"},
    hints=(
        "After an alert there is silence about this issue for five minutes, however long it lasts.",
        "Remember when you last sent an alert on this issue, and compare before you send.",
        "if now - last_sent.get('error_rate', -inf) < 300: return",
    ),
)
def once(app: App) -> None:
    alerted(app)
    alerts = Alerts(app)
    for _ in range(2):
        app.later(140)
        exchange = fail(app, 3)
    expect_none(
        alerts,
        exchange,
        when="3 failures 140 s after an alert on failures, and 3 more after another 140 s",
        expected="no further alert within 5 minutes",
    )


@check(
    f"{RARELY}: after 5 minutes it is said again",
    chapter=BULLET_3,
    needs={"clock", "llm", "logs"},
    hints=(
        "An issue that lasts is worth another alert after five minutes.",
        "The silence counts from the last alert that was sent; what was suppressed does not prolong it.",
        "if now - last_sent[issue] >= 300: send, and only then last_sent[issue] = now",
    ),
)
def again(app: App) -> None:
    alerted(app)
    app.later(150)
    fail(app, 1)
    app.later(155)
    alerts = Alerts(app)
    exchange = fail(app, 3)
    expect_alert(
        alerts.count(),
        exchange,
        when="3 more failures, 305 s after an alert on failures",
        expected="another alert",
    )


@check(
    f"{RARELY}: another issue is another matter",
    chapter=BULLET_3,
    needs={"clock", "llm", "logs"},
    hints=(
        "An alert on slow answers does not silence one on failures.",
        "Keep the time of the last alert for each issue.",
        "last_sent: dict[str, float] = {}, with 'error_rate' and 'response_time' as keys.",
    ),
)
def other_issue(app: App) -> None:
    forget(app)
    first = Alerts(app)
    slow(app, 25)
    if not first.count():
        raise NotChecked("10 requests of 25 s sent no alert that could silence another one")
    alerts = Alerts(app)
    exchange = fail(app, 8)
    if not (found := alerts.count()):
        alerts_at_all(app)
    expect_alert(
        found,
        exchange,
        when="8 of 10 requests failed, just after an alert on the response time",
        expected="an alert on the error rate as well",
    )


@check(
    f"{RARELY}: also when thirty fail at the same moment",
    chapter=BULLET_3,
    needs={"clock", "llm", "logs"},
    hints=(
        "Thirty failures at once are one issue, and make one alert.",
        "Between looking at the time of the last alert and setting it nothing may be awaited.",
        "last_sent[issue] = now, and only then: await send(alert)",
    ),
)
def burst(app: App) -> None:
    lines = alerted(app)
    alerts = calm(app)
    exchange = fail(app, 30, in_one_moment=True)
    alerts.count()
    time.sleep(QUIET_S)
    found = alerts.count()
    if not found:
        raise NotChecked("30 failures at the same moment sent no alert at all")
    expect(
        found <= lines,
        when="30 requests failed at the same moment",
        expected="one alert",
        came=f"{found // lines} alerts: {alerts.text()}",
        seen=exchange,
    )
