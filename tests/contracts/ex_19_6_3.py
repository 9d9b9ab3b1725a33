"""19.6.3: the cost dashboard.

Readings accepted: GET /costs (or a path that ends so) with the key of the caller; any shape of JSON. Views are found by
known traffic: an hourly view is a list or a mapping in which two hours with spending stand in the ratio of what was
sent, all 24 hours or only those with spending; amounts in dollars or cents, as numbers or as text, rounded to not less
than a hundredth of a cent; conversation ids that the caller chooses or the app, whole or cut short; today's prices or
older ones, one for both directions where it is what the chapter prints; a bar, a colour, a symbol or a word as
indicator.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from shared.pricing import PRICES
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours counts in whole nano-dollars, so hours, models and conversations add up to the same total, to the last one."
)

BULLETS = tuple(f"19.6.3 bullet {number}" for number in range(1, 6))
WORDS = 2000  # of one answer: what it costs shows even where amounts are rounded to a hundredth of a cent
TOLERANCE = 0.3
Path = tuple[str, ...]
names_in: WeakKeyDictionary[App, list[str]] = WeakKeyDictionary()  # what an app calls our twelve conversations


def conversation_field(app: App) -> str:
    """Return what carries the conversation in a request: what the app's schema calls it, else the usual name."""
    names = [name for name in app.manner.takes if re.search("conversation|session|thread|chat", name.lower())]
    return names[0] if names else "conversation_id"


def chat(app: App, conversation: str | None = None, *, times: int = 1, words: int = WORDS) -> Exchange:
    """Send messages that are answered with so many words each; raises NotChecked when one is not answered."""
    body: dict[str, Any] = {app.manner.text_field: "a " * min(words, 450), **app.manner.extra}  # some limit messages
    path, field = app.manner.path, conversation_field(app)
    if conversation and field.startswith("?"):
        path += f"{field}={conversation}"
    elif conversation:
        body[field] = conversation
    model = app.model.model
    reply, model.reply = model.reply, lambda messages: "word " * words
    try:
        for _ in range(times):
            exchange = app.send("POST", path, key=app.key, body=body)
            if exchange.status != 200:
                raise NotChecked(f"a chat was answered {exchange.status}")
    finally:
        model.reply = reply
    return exchange


def costs(app: App) -> tuple[Exchange, Any]:
    """Ask for the costs; a missing or unreadable answer is missed by whoever asks."""
    exchange = app.send("GET", "/costs", key=app.key)
    if exchange.status == 404:
        paths = (app.send("GET", "/openapi.json").json() or {}).get("paths", {})
        for path in (path for path, ways in paths.items() if path.endswith("/costs") and "get" in ways):
            exchange = app.send("GET", path, key=app.key)
    board = exchange.json()
    expect(
        exchange.status == 200 and isinstance(board, (dict, list)),
        when="GET /costs after some chats",
        expected="200 with JSON",
        seen=exchange,
    )
    return exchange, board


def number(value: Any) -> float | None:
    """Read an amount: a number, or text such as "$0.0123" or "12.5%"."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str) and (
        found := re.fullmatch(r"\s*(?:USD|\$)?\s*(-?[\d,]*\.?\d+(?:e-?\d+)?)\s*(?:%|USD)?\s*", value)
    ):
        return float(found[1].replace(",", ""))
    return None


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield everything in the JSON with its path."""
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from walk(item, (*path, str(key)))


def vectors(board: Any) -> dict[Path, list[float]]:
    """Return each list of amounts: of numbers, or of objects by each of their fields, or of rows by each column."""
    found: dict[Path, list[float]] = {}
    for path, value in walk(board):
        items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        numbers = [number(item) for item in items]
        if items and all(n is not None for n in numbers):
            found[path] = [n for n in numbers if n is not None]
        elif items and all(isinstance(item, dict) for item in items):
            for name in items[0]:
                column = [number(item.get(name)) for item in items]
                if all(n is not None for n in column):
                    found[(*path, name)] = [n for n in column if n is not None]
        elif rows := table(items):
            for place in range(len(rows[0])):
                column = [number(row[place]) for row in rows]
                if all(n is not None for n in column):
                    found[(*path, str(place))] = [n for n in column if n is not None]
    return found


def table(items: list[Any]) -> list[list[Any]]:
    """Return the rows of a table, such as [["10:00", 0.1], ["11:00", 0.2]], without a row of headings."""
    if not items or not all(isinstance(item, list) and item and len(item) == len(items[0]) for item in items):
        return []
    has_headings = len(items) > 1 and all(isinstance(name, str) and number(name) is None for name in items[0])
    return items[has_headings and any(number(value) is not None for value in items[1]) :]


def about(left: float, right: float) -> bool:
    """Tell whether two amounts are the same, but for rounding."""
    return abs(left - right) <= TOLERANCE * max(abs(left), abs(right))


def hourly(board: Any) -> list[Path]:
    """Return where the two last hours with spending stand as one to three, and nothing else does: no mere counts."""
    found = []
    for path, values in vectors(board).items():
        spent = [value for value in values if value > 0]
        if sorted(spent) == [1, 3] or re.search("request|count|token|call|message", "".join(path[-1:]).lower()):
            continue
        if len(values) <= 30 and len(spent) == 2 and about(max(spent), 3 * min(spent)) and len(values) != 3:
            found.append(path)
    return found


@check(
    "Spending by hour for the last 24 hours",
    chapter=BULLETS[0],
    needs={"clock", "llm"},
    hints=(
        "What was spent in one hour and what was spent three hours later must stand in different places.",
        "Add each cost to a bucket that is named by its hour, and list the last 24 buckets.",
        'hour = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:00"); self.hourly[hour] += cost',
    ),
)
def by_hour(app: App) -> None:
    quiet_time(app)
    chat(app)
    app.clock.advance(3 * 3600)
    chat(app, times=3)
    exchange, board = costs(app)
    expect(
        bool(hourly(board)),
        when="one chat, three hours later three more, then /costs",
        expected="a list (or mapping) of up to 24 hours in which exactly two show spending, one thrice the other",
        seen=exchange,
    )


@check(
    "Spending by hour for the last 24 hours: and not longer",
    chapter=BULLETS[0],
    needs={"clock", "llm"},
    hints=(
        "What was spent 26 hours ago is not in the last 24 hours.",
        "Walk over the last 24 hours from now, and look each of them up; do not list whatever is there.",
        "for i in range(23, -1, -1): hour = now - timedelta(hours=i); ...",
    ),
)
def only_a_day(app: App) -> None:
    quiet_time(app)
    chat(app)
    app.clock.advance(3 * 3600)
    chat(app, times=3)
    _, board = costs(app)
    places = hourly(board)
    if not places:
        raise NotChecked("no hourly view was found")
    app.clock.advance(26 * 3600)
    chat(app)
    exchange, board = costs(app)
    now = vectors(board)
    left = [[value for value in now.get(place, ()) if value > 0] for place in places]
    expect(
        any(len(spent) == 1 for spent in left),
        when="chats in two hours, 26 hours later one more, then /costs",
        expected="an hourly view with spending in the present hour alone",
        came=f"hours with spending: {left}",
        seen=exchange,
    )


def amount_of(board: Any, name: str) -> float | None:
    """Return the largest amount that stands with a name: as its value, or in the object that carries it."""
    amounts: list[float] = []
    for path, value in walk(board):
        if path and path[-1] == name:
            amounts += [n for _, inner in walk(value) if (n := number(inner)) is not None and 0 < n < 1]
        if isinstance(value, dict) and name in value.values():
            amounts += [n for inner in value.values() if (n := number(inner)) is not None and 0 < n < 1]
        if isinstance(value, list) and name in value:  # a row of a table
            amounts += [n for inner in value if (n := number(inner)) is not None and 0 < n < 1]
        for labels in value.values() if isinstance(value, dict) else ():  # "labels" and "data", "x" and "y"
            if isinstance(labels, list) and name in labels:
                beside = [inner for _, inner in walk(value) if isinstance(inner, list) and len(inner) == len(labels)]
                found = [number(inner[labels.index(name)]) for inner in beside]
                amounts += [n for n in found if n is not None and 0 < n < 1]
    return max(amounts, default=None)


@check(
    "Spending by model",
    chapter=BULLETS[1],
    needs={"llm"},
    hints=(
        "The name of the model must be there, with what was spent on it.",
        "Add each cost to the model that answered; the answer names it, and its usage says how many tokens.",
        "self.by_model[response.model] += cost",
    ),
)
def by_model(app: App) -> None:
    chat(app)
    model = str(app.model.model.calls[-1].body["model"])
    exchange, board = costs(app)
    first = amount_of(board, model)
    expect(
        first is not None,
        when=f"a chat with {model}, then /costs",
        expected=f"{model} and an amount above zero beside it",
        seen=exchange,
    )
    before = first or 0
    chat(app, times=2)
    exchange, board = costs(app)
    after = amount_of(board, model) or 0
    expect(
        about(after, 3 * before),
        when="a chat, /costs, two more of the same, /costs again",
        expected=f"three times the amount for {model}: {3 * before:.6f}",
        came=f"{after:.6f} after {before:.6f}",
        seen=exchange,
    )


@check(
    "Spending by model: answers at the price of answers",
    chapter=BULLETS[1],
    needs={"llm"},
    beyond=True,  # the chapter names no prices
    hints=(
        "A token of an answer costs several times as much as a token of a question.",
        "The usage counts both, prompt_tokens and completion_tokens; each has a price of its own.",
        "cost = (usage.prompt_tokens * price.input + usage.completion_tokens * price.output) / 1_000_000",
    ),
)
def output_price(app: App) -> None:
    begin(app, str(uuid.uuid4()), words=450)  # conversations of their own: what was said before costs, too
    model = str(app.model.model.calls[-1].body["model"])
    if (price := PRICES.get(model)) is None:
        raise NotChecked(f"what {model} costs is not known here")
    _, board = costs(app)
    before = amount_of(board, model) or 0.0
    words = max(WORDS, int(5000 / price.output))
    begin(app, str(uuid.uuid4()), words=words)
    exchange, board = costs(app)
    after = amount_of(board, model)
    if after is None or after < before:
        raise NotChecked("what was spent on the model was not found")
    questions_price = float(price.cost_usd(words + 500))  # the message with what is sent along
    expect(
        after - before > 1.25 * questions_price,
        when=f"{model} answers a message with {words} words, then /costs",
        expected=f"about {float(price.cost_usd(500, words)):.4f} more, since {model} takes {price.output} USD for a "
        f"million tokens of answers; for questions it takes {price.input}",
        came=f"{after - before:.4f} more",
        seen=exchange,
    )


def named(exchange: Exchange, wanted: str) -> str:
    """Return what the app calls a conversation: as it was asked to, or as its answer says."""
    own = r"(conversation|session|thread|chat)\w*id$|(conversation|session|thread)$"
    ids = {
        str(value)
        for path, value in walk(exchange.json())
        if re.search(own, "_".join(path[-2:]).lower()) and re.fullmatch(r"[\w.:-]+", str(value))
    }
    return wanted if not ids or wanted in ids else min(ids)


def begin(app: App, wanted: str, *, words: int) -> str:
    """Send the first message of a conversation; return what the app calls it, which may take no name but its own."""
    try:
        return named(chat(app, wanted, words=words), wanted)
    except NotChecked:
        return named(chat(app, words=words), wanted)


def costs_of_conversations(app: App) -> tuple[Exchange, Any, list[str]]:
    """Let twelve conversations cost more and more, once, in mixed order; every other one has twice the messages.

    Return the costs and the conversations' names, the cheapest first. Where every message is a conversation of its own,
    each has one.
    """
    if app not in names_in:
        names, goes_on = [""] * 12, True
        for index in (1, 5, 11, 0, 8, 3, 10, 6, 9, 2, 7, 4):
            times = 1 + index % 2 if goes_on else 1
            words = int(120 * 1.5**index / times)
            names[index] = begin(app, f"{index:02d}c0ffee-0000-4000-8000-000000000000", words=words)
            if times == 2:
                goes_on = named(chat(app, names[index], words=words), names[index]) == names[index]
        names_in[app] = names
    return *costs(app), names_in[app]


def ranking(board: Any, names: Sequence[str]) -> list[list[int]]:
    """Return each list (or mapping) that names our conversations, as the numbers of those, in order."""
    found = []
    for _, value in walk(board):
        items = value if isinstance(value, list) else list(value) if isinstance(value, dict) else []
        numbers = [which(item, names) for item in table(items) or items]
        if len(numbers) > 1 and None not in numbers:
            found.append([n for n in numbers if n is not None])
    return found


def which(item: Any, names: Sequence[str]) -> int | None:
    """Return which conversation an entry is about: one of its values is the name, or begins with some of it."""
    leaves = [(path, str(leaf)) for path, leaf in walk(item) if isinstance(leaf, (str, int))]
    leaves.sort(key=lambda leaf: not (leaf[0] and leaf[0][-1].lower().endswith("id")))
    for _, leaf in leaves:
        if leaf in names:
            return names.index(leaf)
    if len({name[:6] for name in names if len(name) > 6}) == len(names):
        for number, name in enumerate(names):
            if any(re.search(rf"(?<!\w){re.escape(name[:6])}", leaf) for _, leaf in leaves):
                return number
    return None


@check(
    "Top 10 most expensive conversations",
    chapter=BULLETS[2],
    needs={"llm"},
    hints=(
        "Of twelve conversations the ten that cost most are shown, and the two cheapest are not.",
        "Add up the cost by conversation_id, sort by it, and take ten.",
        "heapq.nlargest(10, self.by_conversation.items(), key=lambda item: item[1])",
    ),
)
def top_ten(app: App) -> None:
    exchange, board, names = costs_of_conversations(app)
    lists = ranking(board, names)
    expect(
        any(sorted(numbers) == list(range(2, 12)) for numbers in lists),
        when="twelve conversations of different cost, then /costs",
        expected=f"a list of the ten dearest, with {names[11]} and {names[2]}, without {names[1]} and {names[0]}",
        came=", ".join(names[number] for number in max(lists, key=len, default=[])) or "no list of these conversations",
        seen=exchange,
    )


@check(
    "Top 10 most expensive conversations: the dearest first",
    chapter=BULLETS[2],
    needs={"llm"},
    hints=(
        "The most expensive conversation stands first.",
        "Sort by cost and descending, not by time and not by id.",
        "sorted(totals.items(), key=lambda item: item[1], reverse=True)[:10]",
    ),
)
def dearest_first(app: App) -> None:
    exchange, board, names = costs_of_conversations(app)
    lists = [numbers for numbers in ranking(board, names) if len(numbers) >= 10]
    if not lists:
        raise NotChecked("no list of conversations was found")
    expect(
        any(numbers == sorted(numbers, reverse=True) for numbers in lists),
        when="twelve conversations of different cost, then /costs",
        expected="the dearest first: " + ", ".join(names[:-4:-1]) + ", ...",
        came=", ".join(names[number] for number in lists[0]),
        seen=exchange,
    )


def under(board: Any, words: str) -> dict[Path, Any]:
    """Return what stands anywhere under a key with one of the words in it."""
    return {path: value for path, value in walk(board) if any(re.search(words, part.lower()) for part in path)}


def projected(board: Any) -> dict[Path, float]:
    """Return the amounts under a key that speaks of a projection, except for what is no projection there."""
    there = under(
        board, r"project|forecast|estimat|extrapolat|run_?rate|monthly_?cost|per_?month|month_?end|end_?of_?month"
    )
    amounts = {path: n for path, value in there.items() if (n := number(value)) is not None}
    return {
        path: n for path, n in amounts.items() if not re.search("spent|so_far|hours|days|date|left", path[-1].lower())
    }


def quiet_time(app: App) -> None:
    """Go on to a new minute, and away from the end of a month: what a view says of a month must not start over."""
    app.clock.new_minute()
    while not 3 <= datetime.datetime.fromtimestamp(app.clock.time(), datetime.UTC).day <= 20:
        app.clock.advance(86_400)


@check(
    "Projected monthly cost based on current usage",
    chapter=BULLETS[3],
    needs={"clock", "llm"},
    hints=(
        "From what was spent so far, say what the month will cost.",
        "Divide by the time that was observed, and multiply by the length of the month.",
        "rate = spent / observed_hours; projected = rate * 24 * days_in_month",
    ),
)
def projection(app: App) -> None:
    quiet_time(app)
    for _ in range(3):
        chat(app)
        app.clock.advance(3600)
    model = str(app.model.model.calls[-1].body["model"])
    exchange, board = costs(app)
    spent = amount_of(board, model)
    if spent is None:
        raise NotChecked("what was spent on the model was not found, so a projection cannot be judged")
    expect(
        any(value >= 1.2 * spent for value in projected(board).values()),
        when="a chat an hour for three hours, then /costs",
        expected=f"a projection for the whole month: clearly more than the {spent:.6f} of these three hours",
        came=f"projected: {list(projected(board).values())}",
        seen=exchange,
    )


@check(
    "Projected monthly cost based on current usage: more usage, a higher projection",
    chapter=BULLETS[3],
    needs={"clock", "llm"},
    hints=(
        "The projection is computed from usage, not set.",
        "Ask for it again after more calls: it has to rise.",
        "Compute it in the endpoint, each time, from the current totals.",
    ),
)
def projection_follows(app: App) -> None:
    quiet_time(app)
    for _ in range(3):
        chat(app)
        app.clock.advance(3600)
    _, board = costs(app)
    before = {path: amount for path, amount in projected(board).items() if amount > 0}
    if not before:
        raise NotChecked("no projection was found")
    chat(app, times=5)
    exchange, board = costs(app)
    after = projected(board)
    expect(
        any(after.get(path, 0.0) > 1.05 * amount for path, amount in before.items()),
        when="a chat an hour for three hours, /costs, five more chats, /costs again",
        expected="a higher projection",
        came=f"{list(after.values())} after {list(before.values())}",
        seen=exchange,
    )


@check(
    "Comparison to budget with visual indicator",
    chapter=BULLETS[4],
    needs={"llm"},
    hints=(
        "Say how much of the budget is used.",
        "Set a monthly budget, and show it beside what is spent and the percentage.",
        '{"budget": 10.0, "spent": spent, "percent_used": 100 * spent / 10.0, ...}',
    ),
)
def budget(app: App) -> None:
    chat(app, times=2)
    exchange, board = costs(app)
    first = {path: n for path, value in under(board, "budget").items() if (n := number(value)) is not None}
    chat(app, times=6)
    exchange, board = costs(app)
    second = {path: n for path, value in under(board, "budget").items() if (n := number(value)) is not None}
    fixed = [path for path, value in second.items() if value > 0 and first.get(path) == value]
    moved = [path for path, value in second.items() if path in first and first[path] != value]
    expect(
        bool(fixed and moved),
        when="two chats, /costs, six more, /costs again",
        expected='under a key with "budget" in it a budget that stays, and beside it a number that moves',
        came=f"stays: {['.'.join(path) for path in fixed]}, moves: {['.'.join(path) for path in moved]}",
        seen=exchange,
    )


@check(
    "Comparison to budget with visual indicator: the indicator",
    chapter=BULLETS[4],
    needs={"llm"},
    hints=(
        "A number alone is not an indicator.",
        "Add something that can be seen: a bar of characters, a symbol, a colour, a word such as ok or over.",
        'bar = "#" * filled + "-" * (20 - filled)',
    ),
)
def indicator(app: App) -> None:
    chat(app)
    exchange, board = costs(app)
    here = under(board, "budget") | under(board, "indicator|gauge|progress")
    if not here:
        raise NotChecked('nothing stands under a key with "budget" in it')
    texts = [value for value in here.values() if isinstance(value, str) and number(value) is None]
    texts = [text for text in texts if not re.fullmatch(r"\d{4}-\d\d.*|USD|[a-z]+ \d{4}", text, re.IGNORECASE)]
    expect(
        bool(texts),
        when="one chat, then /costs",
        expected="a bar, a symbol, a colour or a word beside the budget",
        seen=exchange,
    )
