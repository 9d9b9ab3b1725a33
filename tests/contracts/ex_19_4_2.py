"""19.4.2: GET /metrics with rates, the 95th percentile, errors and tokens.

Readings accepted: any path with "metric" or "dashboard" in it; any shape of JSON, or lines of text as Prometheus reads
them, since numbers are found by known traffic; requests per minute as a list or as one average over 5 minutes, calendar
minutes or sliding ones, with or without the requests for the metrics themselves; any definition of the percentile, in
seconds or milliseconds; errors by status, by type or by text, since the start; tokens as input, output or total;
conversation, session or thread.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from shared.offline import BadRequest, Fault, text_of
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = "ours never grows with the traffic: what do your lists hold after a day of ten requests a second?"

BULLET_1 = "19.4.2 bullet 1"
BULLET_2 = "19.4.2 bullet 2"
BULLET_3 = "19.4.2 bullet 3"
BULLET_4 = "19.4.2 bullet 4"
RATE = "Requests per minute (last 5 minutes)"
PERCENTILE = "95th percentile response time"
ERRORS = "Top 5 most common errors"
TOKENS = "Token usage breakdown by conversation"

OWN = 3  # requests for the metrics that an app may count as well
REPLY_TOKENS = 1379
REFUSALS = (400, 401, 403, 404, 422)  # each is an exception of its own in the SDK, and none is tried again
CONVERSATION = re.compile(r"conv|session|thread|chat_id", re.IGNORECASE)
Path = tuple[str, ...]


def metrics_path(app: App) -> str:
    """Return where the metrics are."""
    paths = (app.send("GET", "/openapi.json").json() or {}).get("paths", {})
    found = [p for p in paths if re.search("metric|dashboard", p) and "get" in paths[p] and "{" not in p]
    return "/metrics" if "/metrics" in found or not found else min(found, key=len)


def metrics(app: App, path: str | None = None) -> tuple[Exchange, Any]:
    """Ask for the metrics; return the exchange and its JSON, or its lines as if they were JSON."""
    path = path or metrics_path(app)
    exchange = app.send("GET", path, key=app.key, headers={"Accept": "application/json"})
    seen = exchange.json()
    if not isinstance(seen, (dict, list)):
        seen = from_text(exchange.text)
    expect(
        exchange.status == 200 and bool(seen),
        when="after some messages",
        expected="200 with the metrics as JSON (or as text, a name and a number in each line)",
        seen=exchange,
    )
    return exchange, seen


def from_text(text: str) -> dict[str, Any]:
    """Return the lines of a text or the rows of a page as a mapping: `name 1`, `name: 1 s` or `name{label="x"} 1`."""
    text = re.sub(r"</(?:tr|li|p|div|dd|h\d|pre)>|<br */?>", "\n", re.sub(r"\s*</(?:td|th|dt)>\s*", " ", text))
    found: dict[str, Any] = {}
    for line in re.sub(r"<[^>\n]*>", "", text).splitlines():
        if match := re.fullmatch(r"\s*([^#{]*?)(\{.*\})?[\s:=]+(-?\d+(?:\.\d+)?(?:e-?\d+)?) *(?:ms|s|%)?\s*", line):
            name, labels, number = match.groups()
            if labels:
                found.setdefault(name, {})[labels] = float(number)
            else:
                found[name] = float(number)
    return found


def numbers(value: Any, path: Path = ()) -> Iterator[tuple[Path, float]]:
    """Return every number with the names that lead to it; a number written as text counts, too."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from numbers(item, (*path, str(name)))
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield path, float(value)
    elif isinstance(value, str) and (match := re.fullmatch(r"([\d.]+) ?(ms|s|%)?", value)) and value.count(".") < 2:
        yield path, float(match[1])


def sequences(value: Any) -> Iterator[list[float]]:
    """Return every row of numbers: lists, the columns of tables, the values of mappings."""
    if isinstance(value, dict):
        yield [item for item in value.values() if is_number(item)]
        for item in value.values():
            yield from sequences(item)
    elif isinstance(value, list):
        rows = [list(row.items()) if isinstance(row, dict) else list(enumerate(row)) for row in value if row_like(row)]
        for name in dict.fromkeys(name for row in rows for name, _ in row):
            yield [item for row in rows for key, item in row if key == name and is_number(item)]
        yield [item for item in value if is_number(item)]
        for item in value:
            yield from sequences(item)


def is_number(value: Any) -> bool:
    """Tell whether this is a number, and not True or False."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def row_like(value: Any) -> bool:
    """Tell whether this is a row of a table."""
    return isinstance(value, (dict, list))


def named(value: Any, pattern: str, path: Path = ()) -> Iterator[Any]:
    """Return the parts of the metrics that stand under such a name."""
    if isinstance(value, dict):
        for name, item in value.items():
            if re.search(pattern, name, re.IGNORECASE):
                yield item
            else:
                yield from named(item, pattern)
    elif isinstance(value, list):
        for item in value:
            yield from named(item, pattern)


def without(value: Any, pattern: str) -> Any:
    """Return the metrics without the parts that stand under such a name."""
    if isinstance(value, dict):
        return {
            name: without(item, pattern)
            for name, item in value.items()
            if not re.search(pattern, str(name), re.IGNORECASE)
        }
    return [without(item, pattern) for item in value] if isinstance(value, list) else value


def work(app: App, count: int) -> None:
    """Send messages that are answered."""
    for _ in range(count):
        exchange = app.chat()
        if exchange.status != 200:
            raise NotChecked(f"a plain message was answered {exchange.status or 'not at all'}")


def slow(app: App, seconds: float, count: int) -> None:
    """Send messages that are answered after so many seconds."""
    exchanges = app.slow_chats(count, seconds)
    if any(exchange.status != 200 for exchange in exchanges):
        raise NotChecked(f"a model that takes {seconds:.0f} s makes your app answer {exchanges[0].status}")


@contextmanager
def model_says(app: App, text: str | None) -> Iterator[None]:
    """Let the model answer with this text; None: with an error."""

    def reply(messages: Any) -> str:
        if text is None:
            raise BadRequest("The stand-in was told to fail.", status=500)
        return text

    before, app.model.model.reply = app.model.model.reply, reply
    try:
        yield
    finally:
        app.model.model.reply = before


def fail(app: App, count: int) -> None:
    """Send messages at which the model fails."""
    with model_says(app, None), ThreadPoolExecutor(count) as pool:
        exchanges = list(pool.map(lambda _: app.chat(), range(count)))
    if any(0 < exchange.status < 400 for exchange in exchanges):
        raise NotChecked(f"when the model fails, your app answers {exchanges[0].status}: nothing looks like an error")


def refused(app: App, status: int) -> None:
    """Send a message at which the model answers with this status."""
    app.model.next(Fault(status=status))
    try:
        app.chat()
    finally:
        app.model.model._faults.clear()


# ---------------------------------------------------------------- requests per minute


@check(
    RATE,
    chapter=BULLET_1,
    needs={"clock", "llm"},
    hints=(
        "7 requests in one minute and 4 in the next one are to be seen as such, or as the average over 5 minutes.",
        "Remember the time of every request, or count in a slot for each minute.",
        "Counter(int((now - t) // 60) for t in times if now - t < 300) -- minutes ago, and how many.",
    ),
)
def per_minute(app: App) -> None:
    app.clock.new_minute()
    work(app, 7)
    app.later(60)
    work(app, 4)
    exchange, seen = metrics(app)
    pairs = [pair for row in sequences(without(seen, "error|fail|token")) for pair in itertools.pairwise(row)]
    in_a_row = any(
        7 <= first <= 7 + OWN and 4 <= second <= 4 + OWN for pair in pairs for first, second in (pair, pair[::-1])
    )
    averages = [number for path, number in numbers(seen) if re.search(r"min|rpm|rate", "/".join(path), re.IGNORECASE)]
    average = any(11 / 5 - 0.01 <= number <= (11 + OWN) / 5 for number in averages)
    expect(
        in_a_row or average,
        when="after 7 requests in one minute and 4 in the next one",
        expected="7 and 4 side by side, or the average over five minutes, 2.2",
        seen=exchange,
    )


@check(
    f"{RATE}: older requests are forgotten",
    chapter=BULLET_1,
    needs={"clock", "llm"},
    hints=(
        "What came six minutes ago belongs to none of the last five minutes.",
        "Throw old slots (or times) away when you look, and not only when a request comes in.",
        "while times and now - times[0] >= 300: times.popleft() -- in the function that answers GET /metrics.",
    ),
)
def five_minutes(app: App) -> None:
    app.clock.new_minute()
    work(app, 9)
    before, seen_before = metrics(app)
    app.later(6 * 60)
    exchange, seen = metrics(app, before.path)
    pattern = r"minute|rpm|per_min|rate"
    rates = [number for part in named(seen_before, pattern) for number in rates_of(part)]
    if not any(number >= 9 / 5 - 0.01 for number in rates):
        raise NotChecked("no field with 'minute', 'rpm' or 'rate' in its name shows the 9 requests of this minute")
    left = [number for part in named(seen, pattern) for number in rates_of(part)]
    expect(
        all(number <= OWN for number in left) and not any(9 / 5 - 0.01 <= n <= 9 / 5 + 0.01 for n in left),
        when="6 minutes after 9 requests, with none since",
        expected="0 requests in each of the last five minutes",
        seen=exchange,
    )


def rates_of(part: Any) -> Iterator[float]:
    """Return the numbers of a part that may be counts: not the names of minutes."""
    for path, number in numbers({"": part}):
        if not re.search(r"ago|minute$|index|window|total|start|end|time", path[-1], re.IGNORECASE):
            yield number


# ---------------------------------------------------------------- the percentile


@check(
    PERCENTILE,
    chapter=BULLET_2,
    needs={"clock", "llm"},
    hints=(
        "Of 40 requests 36 were quick, 3 took 5 seconds and one took 20: the 95th percentile is 5 seconds.",
        "Sort the durations and take the one at 95% of the way: neither the average nor the slowest.",
        "statistics.quantiles(durations, n=20)[-1], or sorted(durations)[int(0.95 * len(durations))]",
    ),
)
def percentile(app: App) -> None:
    if app.used:
        raise NotChecked("needs an app that has counted nothing yet")
    work(app, 18)
    slow(app, 5, 3)
    slow(app, 20, 1)
    work(app, 18)
    exchange, seen = metrics(app)
    found = [("/".join(path), number) for path, number in numbers(seen) if "95" in "/".join(path)]
    in_seconds = any(4.9 <= number <= 6 and not re.search("ms|milli", name) for name, number in found)
    expect(
        in_seconds or any(4900 <= number <= 6000 for _, number in found),
        when="after 40 requests: 36 quick ones, 3 of 5 s, 1 of 20 s",
        expected="a field with 95 in its name and about 5 (seconds) or 5000 (milliseconds)",
        seen=exchange,
    )


@check(
    f"{PERCENTILE}: also before there is one",
    chapter=BULLET_2,
    hints=(
        "GET /metrics is the first request of all, and is answered with 200.",
        "An empty list has no percentile: look at its length before you take one from it.",
        "p95 = sorted(durations)[int(0.95 * len(durations))] if durations else None",
    ),
)
def percentile_of_nothing(app: App) -> None:
    if app.used:
        raise NotChecked("needs an app that has counted nothing yet")
    exchange = app.send("GET", metrics_path(app), key=app.key, headers={"Accept": "application/json"})
    expect(exchange.status == 200, when="nobody has sent a message yet", expected="200", seen=exchange)


# ---------------------------------------------------------------- errors


@check(
    ERRORS,
    chapter=BULLET_3,
    needs={"llm"},
    hints=(
        "When the model fails six times, an error is listed with a count of six.",
        "Count errors by their kind: the status, or the exception's type. A text with an id in it is new every time.",
        "errors = Counter(); errors[type(error).__name__] += 1; errors.most_common(5)",
    ),
)
def errors_counted(app: App) -> None:
    work(app, 1)  # an app that has counted nothing is another check's matter
    _, before = metrics(app)
    fail(app, 6)
    exchange, seen = metrics(app)
    counts = [number for part in named(seen, "error|fail") for _, number in numbers(part)]
    earlier = [number for part in named(before, "error|fail") for _, number in numbers(part)]
    expect(
        any(number - 6 in (0, *earlier) for number in counts),
        when="after 6 requests at which the model failed",
        expected="an error with a count that is 6 higher than before",
        seen=exchange,
    )


@check(
    f"{ERRORS}: five, the most common first",
    chapter=BULLET_3,
    needs={"llm"},
    hints=(
        "At most five kinds of errors are listed, in the order of their counts.",
        "Sort by count, descending, and cut after five.",
        "Counter.most_common(5) does both.",
    ),
)
def errors_top_five(app: App) -> None:
    for method, path in (("DELETE", app.manner.path), ("POST", "/metrics"), ("POST", "/nowhere"), ("GET", "/not/here")):
        app.send(method, path, key=app.key)
    for count, status in enumerate(REFUSALS, 1):  # the rarest first: the order of arrival is not that of the counts
        for _ in range(count):
            refused(app, status)
    fail(app, len(REFUSALS) + 1)
    for _ in range(7):
        app.send("POST", app.manner.path, key=app.key, body={})
        app.send("GET", "/nowhere", key=app.key)
        for _ in range(2):
            app.send("PUT", app.manner.path, key=app.key)
        for _ in range(3):
            app.send("POST", app.manner.path, key="wrong-key", body={"message": "hi"})
    exchange, seen = metrics(app)
    tables = [table for part in named(seen, "error|fail") for table in tables_in(part)]
    if not tables:
        raise NotChecked("no list of errors was found")
    expect(
        all(len(table) <= 5 for table in tables),
        when="after errors of many kinds",
        expected="five of them at most",
        seen=exchange,
    )
    rows = [row for table in tables for row in sequences({"": table} if isinstance(table, dict) else table)]
    counts = [row for row in rows if len(row) > 1 and not all(number >= 400 for number in row)]
    expect(
        any(row == sorted(row, reverse=True) for row in counts) or not counts,
        when="after errors of many kinds",
        expected="their counts in descending order",
        seen=exchange,
    )


def tables_in(part: Any) -> Iterator[Any]:
    """Return the lists of rows, and the mappings from names to counts."""
    if isinstance(part, list) and part:
        yield part
    elif isinstance(part, dict):
        if part and all(map(is_number, part.values())):
            yield part
        for item in part.values():
            yield from tables_in(item)


# ---------------------------------------------------------------- tokens


class Conversation:
    """One conversation with the app, however its id is called and whoever makes it."""

    def __init__(self, app: App, name: str) -> None:
        self._app, self.id, self.input = app, name, 0
        schema = app.send("GET", "/openapi.json").json() or {}
        body: dict[str, Any] = {}
        for model in schema.get("components", {}).get("schemas", {}).values():
            if app.manner.text_field in model.get("properties", {}):
                body = model["properties"]
        self._field = next((field for field in body if CONVERSATION.search(field)), None)
        self.messages = 0

    def say(self, text: str) -> None:
        """Send a message; afterwards `id` is the conversation's id and the sums are what the model counted."""
        body = {self._app.manner.text_field: text, **self._app.manner.extra}
        if self._field:
            body[self._field] = self.id
        with model_says(self._app, " ".join(["word"] * REPLY_TOKENS)):
            exchange = self._app.send("POST", self._app.manner.path, key=self._app.key, body=body)
        if exchange.status != 200:
            raise NotChecked(f"a message with a conversation id was answered {exchange.status}")
        answer = exchange.json()
        if isinstance(answer, dict):
            given = [(name, str(value)) for name, value in answer.items() if CONVERSATION.search(name) and value]
            if given:
                if self.messages and given[0][1] != self.id:  # each message is a conversation of its own here
                    self.messages = self.input = 0
                self._field, self.id = self._field or given[0][0], given[0][1]
        self.messages += 1
        sent = self._app.model.model.calls[-1].messages
        self.input += sum(len(re.findall(r"\w+|[^\w\s]", text_of(message))) for message in sent)

    def sums(self) -> tuple[int, int, int]:
        """Return the input, output and all tokens so far."""
        output = self.messages * REPLY_TOKENS
        return self.input, output, self.input + output


def numbers_of(value: Any, name: str) -> list[float]:
    """Return the numbers that stand beside or below a conversation's id."""
    if isinstance(value, dict):
        for key, item in value.items():
            if name in str(key):
                return [number for _, number in numbers({"": item})]
        if any(isinstance(item, str) and name in item for item in value.values()):
            return [number for _, number in numbers(value)]
        return next((found for item in value.values() if (found := numbers_of(item, name))), [])
    if isinstance(value, list):
        if any(isinstance(item, str) and name in item for item in value):
            return [number for _, number in numbers(value)]
        return next((found for item in value if (found := numbers_of(item, name))), [])
    return []


@check(
    TOKENS,
    chapter=BULLET_4,
    needs={"llm"},
    hints=(
        "After one message the conversation's id is listed, with the tokens that the model counted.",
        "The model's answer has them in usage; add them up in a dictionary by conversation id.",
        "tokens[conversation_id] += response.usage.total_tokens  # tokens = defaultdict(int)",
    ),
)
def tokens(app: App) -> None:
    conversation = Conversation(app, "conv-of-check-one")
    conversation.say("how long is a piece of string?")
    exchange, seen = metrics(app)
    found = numbers_of(seen, conversation.id)
    expect(
        any(number in conversation.sums() for number in found),
        when=f"after one message in conversation {conversation.id}",
        expected=f"this id with {conversation.sums()[0]} (in), {REPLY_TOKENS} (out) or {conversation.sums()[2]} tokens",
        seen=exchange,
    )


@check(
    f"{TOKENS}: added up, and apart",
    chapter=BULLET_4,
    needs={"llm"},
    hints=(
        "Two messages of a conversation add up; another conversation has its own sum.",
        "Add to what is there, do not replace it; and use the conversation's id as the key.",
        "tokens[conversation_id] = tokens.get(conversation_id, 0) + response.usage.total_tokens",
    ),
)
def tokens_apart(app: App) -> None:
    one, other = Conversation(app, "conv-of-check-two"), Conversation(app, "conv-of-check-three")
    one.say("how long is a piece of string?")
    _, seen = metrics(app)
    if not any(number in one.sums() for number in numbers_of(seen, one.id)):
        raise NotChecked("the tokens of a single message are not shown")
    other.say("and how long are two pieces?")
    one.say("are you sure?")
    exchange, seen = metrics(app)
    expect(
        any(number in one.sums() for number in numbers_of(seen, one.id))
        and any(number in other.sums() for number in numbers_of(seen, other.id)),
        when=f"after two messages in conversation {one.id} and one in {other.id}",
        expected=f"{one.sums()[2]} tokens (in: {one.sums()[0]}, out: {one.sums()[1]}) for the first and "
        f"{other.sums()[2]} (in: {other.sums()[0]}, out: {other.sums()[1]}) for the other",
        seen=exchange,
    )
