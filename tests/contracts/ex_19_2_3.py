"""19.2.3: ten requests a minute per API key.

Readings accepted: a sliding minute, a fixed one from the first request, a calendar minute; `Retry-After` in whole
seconds or as a date, one second either way; 401 or 403 for a key that is not known.
"""

from __future__ import annotations

import email.utils
import re

from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours is exact in any 60 seconds: a window that starts anew every minute lets 19 requests through in one of them."
)

LIMIT = 10
BULLET_1 = "19.2.3 bullet 1"
BULLET_2 = "19.2.3 bullet 2"
BULLET_3 = "19.2.3 bullet 3"


def use_up(app: App, key: str | None = None) -> list[Exchange]:
    """Start a minute that nobody has used and send ten requests in it."""
    if "clock" in app.capabilities:
        app.clock.new_minute()
    return [app.chat(key=key) for _ in range(LIMIT)]


def over_the_limit(app: App) -> Exchange:
    """Return the answer to a request that is refused; without one there is nothing to look at."""
    use_up(app)
    eleventh = app.chat()
    if eleventh.status != 429:
        raise NotChecked(f"request 11 was answered {eleventh.status}, not 429")
    return eleventh


def seconds(app: App, value: str) -> float | None:
    """Read a Retry-After value: whole seconds, or a date on the app's clock; None when it is neither."""
    if re.fullmatch(r"\d+", value.strip()):
        return int(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return date.timestamp() - app.clock.time() if "clock" in app.capabilities else None


@check(
    "Allows maximum 10 requests per minute per API key",
    chapter=BULLET_1,
    needs={"clock", "llm"},
    hints=(
        "The first ten requests of a minute must go through to the model.",
        "Count the requests of the last 60 seconds first, then compare: the tenth is still allowed.",
        "if len(recent) >= 10: refuse -- and append the new time only after that.",
    ),
)
def ten_allowed(app: App) -> None:
    before: set[str] = set()
    for number, exchange in enumerate(use_up(app), 1):
        said = app.model.said(exchange.text)
        expect(
            exchange.status == 200 and bool(said - before),
            when=f"request {number} inside one minute",
            expected="200 with the model's answer to it",
            seen=exchange,
        )
        before |= said


@check(
    "Returns a 429 (Too Many Requests) status when exceeded",
    chapter=BULLET_2,
    needs={"clock"},
    hints=(
        "Request 11 inside a minute gets status 429, also when all arrive at the same moment.",
        "Raise HTTPException(status_code=429, ...). No `await` between looking at the count and adding to it.",
        "Decide and record in one step: if the list of the last minute is full, raise; else append time.monotonic().",
    ),
)
def eleventh_429(app: App) -> None:
    use_up(app)
    eleventh = app.chat()
    expect(eleventh.status == 429, when="request 11 inside one minute", expected="status 429", seen=eleventh)
    app.clock.new_minute()
    burst = app.chats_at_once(3 * LIMIT, key=app.manner.keys[-1])
    passed = [exchange for exchange in burst if exchange.status == 200]
    others = [exchange for exchange in burst if exchange.status not in (200, 429)]
    expect(
        len(passed) == LIMIT and not others,
        when=f"{len(burst)} requests at the same moment",
        expected=f"{LIMIT} answered with 200, the others with 429",
        came=f"{len(passed)} with 200, {sum(e.status == 429 for e in burst)} with 429"
        + (f", {len(others)} with {sorted({e.status for e in others})}" if others else ""),
        seen=burst[0],
    )


@check(
    "Allows maximum 10 requests per minute per API key: a key that is used up does not affect another",
    chapter=BULLET_1,
    needs={"clock"},
    hints=(
        "Every key has its own ten.",
        "Keep one list of times for each key: a dictionary from the key to its times.",
        "times = hits.setdefault(api_key, deque()) -- and key it by the API key, not by the client's address.",
    ),
)
def per_key(app: App) -> None:
    other = app.other_key
    use_up(app)
    exchange = app.chat(key=other)
    expect(
        exchange.status == 200,
        when="the first request of a second key, after the first key has used up its ten",
        expected="status 200",
        seen=exchange,
    )


@check(
    "Allows maximum 10 requests per minute per API key: a minute later it may go on",
    chapter=BULLET_1,
    needs={"clock"},
    hints=(
        "Within the minute everything more than ten is refused; a minute after its requests a key is welcome again.",
        "Drop the times that are 60 seconds old before you count. Do not write down refused requests.",
        "recent = [t for t in hits[key] if now - t < 60] -- append `now` only when the request is accepted.",
    ),
)
def window(app: App) -> None:
    accepted = sum(exchange.status == 200 for exchange in use_up(app))
    eleventh = app.chat()
    if accepted < LIMIT or eleventh.status in (0, 200):
        said = eleventh.status or "not at all"
        raise NotChecked(f"of ten requests {accepted} were accepted, and the eleventh was answered {said}")
    for passed_s in range(5, 60, 5):
        app.clock.advance(5)
        exchange = app.chat()
        expect(
            exchange.status != 200,
            when=f"{passed_s} s after ten requests in one moment",
            expected="a refusal, since ten were accepted less than a minute ago",
            seen=exchange,
        )
    app.clock.advance(6)
    exchange = app.chat()
    expect(
        exchange.status == 200,
        when="61 s after ten requests, refused every 5 s since",
        expected="status 200: the minute is over, and what was refused does not count",
        seen=exchange,
    )
    app.clock.new_minute()
    for gap_s in (25, 36):
        for _ in range(LIMIT // 2):
            app.chat()
        app.clock.advance(gap_s)
    exchange = app.chat()
    expect(
        exchange.status == 200,
        when="61 s after five requests, 36 s after five more",
        expected="status 200: only five are less than a minute old",
        seen=exchange,
    )


@check(
    "Includes a Retry-After header telling the client when to try again",
    chapter=BULLET_3,
    needs={"clock"},
    hints=(
        "The 429 needs a header, not only a body.",
        "HTTPException takes headers=...; the value is a string of whole seconds, at least 1.",
        'raise HTTPException(429, "too many requests", headers={"Retry-After": str(math.ceil(wait))})',
    ),
)
def retry_after(app: App) -> None:
    refused = over_the_limit(app)
    for later_s in (0, 58.5, 0.9):
        app.clock.advance(later_s)
        refused = app.chat() if later_s else refused
        if refused.status != 429:
            return
        when = "request 11 inside one minute" if not later_s else "a request in the last second or two of the wait"
        value = refused.headers.get("retry-after")
        expect(value is not None, when=when, expected="a Retry-After header", seen=refused)
        wait = seconds(app, value or "")
        expect(
            wait is not None and wait >= (1 if (value or "").isdigit() else -1),
            when=when,
            expected="Retry-After in whole seconds, at least 1 (or as an HTTP date)",
            came=f"Retry-After: {value}",
            seen=refused,
        )


@check(
    "Includes a Retry-After header telling the client when to try again: and it is right",
    chapter=BULLET_3,
    needs={"clock"},
    hints=(
        "Who waits as long as Retry-After says must be let in, and must not wait longer than needed.",
        "The oldest of the ten counted requests decides: the wait ends when that one is 60 seconds old.",
        "wait = 60 - (now - oldest); round it up, so that nobody comes back too early.",
    ),
)
def retry_after_honest(app: App) -> None:
    app.clock.new_minute()
    for _ in range(2):
        for _ in range(LIMIT // 2):
            app.chat()
        app.clock.advance(10)
    refused = app.chat()
    value = refused.headers.get("retry-after", "")
    wait = seconds(app, value) if refused.status == 429 else None
    if wait is None or wait < 1:
        raise NotChecked("there is no Retry-After to hold to its word")
    said = f"five requests, 10 s later five more, 10 s later a refusal with Retry-After: {value}"
    if wait > 2:
        app.clock.advance(wait - 2)
        early = app.chat()
        expect(
            early.status == 429,
            when=f"{said}; {wait - 2:.0f} s after that",
            expected="still a refusal: a wait that is longer than needed keeps clients out",
            seen=early,
        )
    app.clock.advance(min(wait, 2) + 1)
    again = app.chat()
    expect(again.status == 200, when=f"{said}; {wait + 1:.0f} s after that", expected="status 200", seen=again)


@check(
    "Allows maximum 10 requests per minute per API key: wrong keys use up nobody's",
    chapter=BULLET_1,
    needs={"clock"},
    hints=(
        "Requests with a wrong key are refused with 401 and count for nobody.",
        "Verify the key first, and count afterwards, by the verified key.",
        "Let the limiter be a dependency that depends on the one that verifies the key.",
    ),
)
def auth_first(app: App) -> None:
    if not app.manner.checks_keys:
        raise NotChecked("your app accepts every key, so there is no wrong one")
    app.clock.new_minute()
    for number in range(LIMIT + 5):
        wrong = app.chat(key=f"wrong-key-{number % 3}")
        expect(
            wrong.status in (401, 403),
            when=f"request {number + 1} with a wrong key",
            expected="401 (or 403): a key that nobody has is not limited but refused",
            seen=wrong,
        )
    exchange = app.chat()
    expect(
        exchange.status == 200,
        when=f"the first request with a right key, after {LIMIT + 5} with wrong ones",
        expected="status 200",
        seen=exchange,
    )


@check(
    "Allows maximum 10 requests per minute per API key: whatever the Host header says",
    chapter=BULLET_1,
    needs={"clock"},
    hints=(
        "A client writes the Host header as it likes, and it becomes a part of request.url.",
        'Decide by scope["path"] (or by the route itself), never by request.url.',
        "Put the limiter on the endpoint as a dependency, and no path has to be compared at all.",
    ),
)
def host(app: App) -> None:
    over_the_limit(app)
    for value in ("x/health?", "x/docs#", "localhost/health?"):
        exchange = app.chat(Host=value)
        expect(
            exchange.status != 200 or not exchange.answered,
            when="request 12 inside one minute, with a Host header that looks like a path",
            expected="429 as before",
            seen=exchange,
        )
