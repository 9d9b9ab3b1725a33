"""19.4.1: JSON logs with a request ID, the message's beginning, the model and its tokens.

Readings accepted: any field names, nested or flat; standard output or standard error; one line or several a request;
any form of ID; `...` after a cut message; input, output or total tokens. uvicorn's own text lines (`INFO:     ...`) are
let through, and lines of other libraries (httpx, openai, uvicorn) need no ID. Lines are found by words of the message.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from shared.offline import Fault, text_of
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = "ours writes in a thread of its own, and redacts before it cuts: half a key in a log is still a leak."

BULLET_1 = "19.4.1 bullet 1"
BULLET_2 = "19.4.1 bullet 2"
BULLET_3 = "19.4.1 bullet 3"
BULLET_4 = "19.4.1 bullet 4"
JSON_LOGS = "JSON-formatted logs"
REQUEST_ID = "Request ID that's included in all log entries for a request"
MESSAGE = "Log the first 100 characters of the user's message (for debugging)"
MODEL = "Log the model used and token count (if available)"

WRITTEN_S = 1.5
SILENT_S = 0.5  # nothing new for so long: what has not come does not come
QUIET_S = 0.03
SERVERS_OWN = re.compile(r"(INFO|WARNING|ERROR|DEBUG|CRITICAL):\s")
SERVERS_WORDS = "Exception in ASGI application"  # uvicorn's, whatever formatter writes it
LIBRARIES = ("uvicorn", "httpx", "httpcore", "openai", "asyncio", "langsmith", "langgraph", "langchain")
ID_NAME = re.compile(
    r"(request|req|correlation|trace|transaction|call)[-_. ]?(id|uuid)$|^(rid|id|uuid)$", re.IGNORECASE
)
ID_ALONE = re.compile(r"^(request|req|correlation|trace)$", re.IGNORECASE)  # {"request": "3f2a9c01"}
ID_VALUE = re.compile(r"(?=.*\d)[\w.:-]{4,}")
ID_HEADER = re.compile(r"(request|req|correlation|trace)[-_]?id$", re.IGNORECASE)
WORDS = itertools.count(int(time.time()) % 100_000 * 1000)


def word() -> str:
    """Return a word that no line has contained yet."""
    return f"zebra{next(WORDS)}x"


class Log:
    """What an app has written since this was made."""

    def __init__(self, app: App) -> None:
        self._app, self._skip = app, len(app.output())

    def lines(self, done: Callable[[str], bool] = bool) -> list[str]:
        """Wait until `done` says so and nothing more comes, then return the lines."""
        deadline, text = time.monotonic() + WRITTEN_S, ""
        while (now := time.monotonic()) < deadline:
            before, text = text, self._app.output()[self._skip :]
            if text and text != before:
                deadline = now + SILENT_S
            elif text and done(text):
                break
            time.sleep(QUIET_S)
        return [line for line in text.splitlines() if line.strip()]

    def entries(self, *words: str) -> list[dict[str, Any]]:
        """Return the JSON objects among the lines, once these words have been written; NotChecked if there are none."""
        lines = self.lines(lambda text: all(word in text for word in words))
        entries = [entry for entry in map(parsed, lines) if entry is not None]
        if not entries:
            raise NotChecked("there are no JSON lines")
        return entries


def parsed(line: str) -> dict[str, Any] | None:
    """Return a line's JSON object, None when it is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def fields(entry: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Return all the values of an entry with their names, however deep."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            yield from fields(value, str(key))
    elif isinstance(entry, list):
        for value in entry:
            yield from fields(value, name)
    else:
        yield name, entry


def of_a_library(entry: dict[str, Any]) -> bool:
    """Tell whether a library has logged this."""
    return any(isinstance(value, str) and value.split(".")[0] in LIBRARIES for _, value in fields(entry))


def with_word(entries: list[dict[str, Any]], word: str) -> list[dict[str, Any]]:
    """Return the entries in which the word stands."""
    return [entry for entry in entries if word in json.dumps(entry, ensure_ascii=False)]


def id_of(entry: dict[str, Any], exchange: Exchange) -> str | None:
    """Return the request ID in an entry: by the field's name, or because the response carries it in a header."""
    given = {value for name, value in exchange.headers.items() if ID_HEADER.search(name)}
    values = [(name, str(value)) for name, value in fields(entry) if value not in (None, "", "-")]
    return next(
        (
            value
            for name, value in values
            if ID_NAME.search(name) or value in given or (ID_ALONE.search(name) and ID_VALUE.fullmatch(value))
        ),
        None,
    )


def chat(app: App, message: str) -> Exchange:
    """Send a message that has to be answered."""
    exchange = app.chat(message)
    if exchange.status != 200:
        raise NotChecked(f"a plain message was answered {exchange.status or 'not at all'}")
    return exchange


def not_json(lines: list[str]) -> list[str]:
    """Return the lines that should be JSON and are not."""
    return [line for line in lines if parsed(line) is None and not SERVERS_OWN.match(line)]


def writes_json(app: App) -> None:
    """Raise NotChecked if a plain message does not make JSON lines: another check's matter."""
    log, mark = Log(app), word()
    chat(app, f"{mark} hello")
    lines = log.lines()
    if not_json(lines) or not any(map(parsed, lines)):
        raise NotChecked("a plain message makes lines that are not JSON")


def one_with_id(app: App) -> tuple[Exchange, str, list[dict[str, Any]]]:
    """Send one message; return the exchange, its ID and all entries since. Without an ID nothing can be told."""
    log, mark = Log(app), word()
    exchange = chat(app, f"{mark} hello")
    entries = log.entries(mark)
    for entry in with_word(entries, mark):
        if request_id := id_of(entry, exchange):
            return exchange, request_id, entries
    raise NotChecked("no entry with the message carries a request ID")


def shown(lines: list[Any]) -> str:
    """Return what was written, for a report."""
    return " | ".join(line if isinstance(line, str) else json.dumps(line) for line in lines)[:300] or "nothing"


# ---------------------------------------------------------------- JSON-formatted logs


@check(
    JSON_LOGS,
    chapter=BULLET_1,
    needs={"logs"},
    hints=(
        "Everything that your app writes about a request should be JSON: one object, one line.",
        "Give your handler a Formatter of your own, whose format(record) returns json.dumps({...}).",
        "class JsonFormatter(logging.Formatter):\n"
        "    def format(self, record): return json.dumps({'level': record.levelname, 'message': record.getMessage()})",
    ),
)
def json_lines(app: App) -> None:
    log = Log(app)
    exchange = chat(app, f"{word()} hello")
    lines = log.lines()
    entries = [line for line in lines if parsed(line) is not None]
    others = not_json(lines)
    expect(
        bool(entries),
        when="after one message",
        expected="at least one log line that is a JSON object (on standard output or standard error)",
        came=shown(lines),
        seen=exchange,
    )
    expect(
        not others,
        when="after one message",
        expected="one JSON object on every line",
        came=f"a line that is none: {shown(others)}",
        seen=exchange,
    )


@check(
    f"{JSON_LOGS}: whatever the message contains",
    chapter=BULLET_1,
    needs={"logs"},
    hints=(
        "A message may contain quotes, backslashes and line breaks, and the log line is JSON all the same.",
        "Do not put JSON together with a format string: let json.dumps do it.",
        "json.dumps({'message': text}) -- and never '{\"message\": \"%(message)s\"}'.",
    ),
)
def json_quotes(app: App) -> None:
    writes_json(app)
    log, mark = Log(app), word()
    exchange = chat(app, f'{mark} said "hi" \\ and\nleft\x1b[31m {{a}} %s %d')
    lines = log.lines(lambda text: mark in text)
    others = not_json(lines)
    expect(
        not others,
        when="after a message with quotes, a backslash, a line break and an escape character",
        expected="one JSON object on every line",
        came=f"a line that is none: {shown(others)}",
        seen=exchange,
    )


@check(
    f"{JSON_LOGS}: with a hundred requests at the same time",
    chapter=BULLET_1,
    needs={"logs"},
    hints=(
        "A hundred requests at once make whole lines, and none is lost.",
        "Write a line with one call, its line break included; logging's handlers do that under a lock.",
        "print(line) writes the line and its end apart, so threads get in between: logger.info(...), or "
        "sys.stdout.write(line + '\\n').",
    ),
)
def json_concurrent(app: App) -> None:
    writes_json(app)
    log, marks = Log(app), [word() for _ in range(100)]
    with ThreadPoolExecutor(25) as pool:
        exchanges = list(pool.map(lambda mark: app.chat(f"{mark} hello"), marks))
    if any(exchange.status != 200 for exchange in exchanges):
        raise NotChecked("not all of a hundred messages were answered with 200")
    lines = log.lines(lambda text: all(mark in text for mark in marks))
    broken = not_json(lines)
    entries = [entry for entry in map(parsed, lines) if entry]
    text = json.dumps(entries)
    expect(
        not broken,
        when="a hundred messages at the same time",
        expected="one JSON object on every line",
        came=f"{len(broken)} lines that are none: {shown(broken)}",
        seen=exchanges[0],
    )
    if all(mark not in text for mark in marks):
        raise NotChecked("the log does not show messages, so lines cannot be told apart")
    lost = [mark for mark in marks if mark not in text]
    expect(
        not lost,
        when="a hundred messages at the same time",
        expected="a line about each of them",
        came=f"none about {len(lost)} of them",
        seen=exchanges[0],
    )


# ---------------------------------------------------------------- Request ID


@check(
    REQUEST_ID,
    chapter=BULLET_2,
    needs={"logs"},
    hints=(
        "Every request gets an ID of its own, and it stands in the entry in which you log the message.",
        "Make one with uuid.uuid4() when the request comes in, and put it into a field called request_id.",
        "request_id.set(uuid.uuid4().hex)  # a contextvars.ContextVar; the formatter reads request_id.get()",
    ),
)
def request_id(app: App) -> None:
    found = []
    for _ in range(2):
        log, mark = Log(app), word()
        exchange = chat(app, f"{mark} hello")
        entries = log.entries(mark)
        about = with_word(entries, mark) or entries
        ids = [id_ for entry in about if (id_ := id_of(entry, exchange))]
        expect(
            bool(ids),
            when="after one message",
            expected="a field with the request's ID (request_id) in the entry",
            came=shown(about),
            seen=exchange,
        )
        found.append(ids[0])
    expect(
        found[0] != found[1],
        when="after two messages, one after the other",
        expected="another ID for each request",
        came=f"{found[0]!r} for both",
    )


@check(
    f"{REQUEST_ID}: in all of them",
    chapter=BULLET_2,
    needs={"logs"},
    hints=(
        "Each entry that your code writes while it serves a request carries the ID, not only the first.",
        "Do not rely on remembering it in every call: keep it in a ContextVar that the formatter reads.",
        "A logging.Filter on the handler: def filter(self, record): record.request_id = request_id.get(); return True",
    ),
)
def request_id_everywhere(app: App) -> None:
    exchange, id_, entries = one_with_id(app)
    without = [entry for entry in entries if id_ not in json.dumps(entry) and not of_a_library(entry)]
    expect(
        not without,
        when="after one message",
        expected=f"the ID {id_} in every entry",
        came=f"an entry without it: {shown(without)}",
        seen=exchange,
    )


@check(
    f"{REQUEST_ID}: also of one that fails",
    chapter=BULLET_2,
    needs={"logs", "llm"},
    hints=(
        "The entry about an error is the one that is looked for by its ID.",
        "Look at the except branch and at the exception handlers: what they log carries the ID, too.",
        "logger.exception('chat failed') inside the middleware's try, while request_id is still set.",
    ),
)
def request_id_of_a_failure(app: App) -> None:
    one_with_id(app)
    log, mark = Log(app), word()
    app.model.next(Fault(status=400))
    try:
        exchange = app.chat(f"{mark} hello")
    finally:
        app.model.model._faults.clear()
    entries = [entry for entry in log.entries(mark) if not of_a_library(entry) and SERVERS_WORDS not in str(entry)]
    id_ = next((id_ for entry in with_word(entries, mark) if (id_ := id_of(entry, exchange))), None)
    if id_ is None:
        raise NotChecked("no entry with the message of a request that failed carries a request ID")
    without = [entry for entry in entries if id_ not in json.dumps(entry)]
    expect(
        not without,
        when=f"after one message, at which the model failed and the app answered {exchange.status}",
        expected=f"the ID {id_} in every entry",
        came=f"an entry without it: {shown(without)}",
        seen=exchange,
    )


@check(
    f"{REQUEST_ID}: also when requests overlap",
    chapter=BULLET_2,
    needs={"logs", "llm"},
    hints=(
        "While one request waits for the model, another one comes in: each keeps its own ID.",
        "A global variable (or an attribute of the app) is overwritten by the next request; a ContextVar is not.",
        "request_id: ContextVar[str] = ContextVar('request_id', default='-') -- set it at the start of each request.",
    ),
)
def request_id_overlap(app: App) -> None:
    one_with_id(app)
    log, marks = Log(app), [word() for _ in range(12)]
    app.model.model.delay_s = 0.2
    try:
        with ThreadPoolExecutor(len(marks)) as pool:
            exchanges = dict(zip(marks, pool.map(lambda mark: app.chat(f"{mark} hello"), marks), strict=True))
    finally:
        app.model.model.delay_s = 0.0
    lines = log.lines(lambda text: all(mark in text for mark in marks))
    if not_json(lines):
        raise NotChecked("there are lines that are not JSON")
    entries = [entry for entry in map(parsed, lines) if entry and not of_a_library(entry)]
    ids = {mark: id_of(with_word(entries, mark)[0], exchanges[mark]) for mark in marks if with_word(entries, mark)}
    expect(
        len(set(ids.values())) == len(marks),
        when=f"{len(marks)} messages at the same time",
        expected=f"{len(marks)} different IDs",
        came=f"{len(set(ids.values()))}",
        seen=exchanges[marks[0]],
    )
    counts = [sum(str(id_) in json.dumps(entry) for entry in entries) for id_ in ids.values()]
    expect(
        len(set(counts)) == 1,
        when=f"{len(marks)} messages at the same time, the model taking its time",
        expected="the same number of entries under each ID",
        came=f"from {min(counts)} to {max(counts)} entries: some stand under the ID of another request",
        seen=exchanges[marks[0]],
    )


# ---------------------------------------------------------------- the message


def begins(text: str, message: str) -> bool:
    """Tell whether the message's first 100 characters stand in a text; dots for what is cut may be among the 100."""
    return message[:100].rstrip() in text or any(
        message[:cut].rstrip() + dots in text for cut in (97, 98, 99) for dots in ("...", "\u2026")
    )


@check(
    MESSAGE,
    chapter=BULLET_3,
    needs={"logs"},
    hints=(
        "The first 100 characters of what the user wrote stand in an entry.",
        "A slice does it: message[:100], also when the message is shorter.",
        "logger.info('chat', extra={'message_preview': body.message[:100]}) -- and let the formatter write that field.",
    ),
)
def first_100(app: App) -> None:
    for length in (20, 300):
        mark = word()
        message = f"{mark} {'lorem ipsum dolor sit amet ' * 20}"[:length].strip()
        log = Log(app)
        exchange = chat(app, message)
        entries = log.entries(mark)
        texts = [str(value) for entry in entries for _, value in fields(entry)]
        expect(
            any(begins(text, message) for text in texts),
            when=f"after a message of {length} characters",
            expected=f"an entry with {'its first 100 characters' if length > 100 else 'the whole message'}",
            came=shown(with_word(entries, mark) or entries),
            seen=exchange,
        )


@check(
    f"{MESSAGE}: and no more than that",
    chapter=BULLET_3,
    needs={"logs"},
    hints=(
        "Many people read a log, and it is kept for long: only the first 100 characters belong there.",
        "Cut the message before you log it, and look for other entries that contain the whole body.",
        "body.message[:100] in every place where the message, or the request's body, is logged.",
    ),
)
def not_more(app: App) -> None:
    log, mark, tail = Log(app), word(), word()
    exchange = chat(app, f"{mark} {'lorem ipsum dolor sit amet ' * 5}{tail}")
    lines = log.lines(lambda text: mark in text)
    if all(mark not in line for line in lines):
        raise NotChecked("the log does not show the message at all")
    expect(
        all(tail not in line for line in lines),
        when="after a message of 160 characters",
        expected="only the first 100 of them in the log",
        came=f"the end of the message, too: {shown([line for line in lines if tail in line])}",
        seen=exchange,
    )


@check(
    f"{MESSAGE}: and not the caller's API key",
    chapter=BULLET_3,
    needs={"logs"},
    hints=(
        "Whoever reads the log must not be able to call the API in somebody else's name.",
        "Do not log headers as a whole; log a caller's name, or a hash of the key.",
        "Remove dict(request.headers) and the api_key from what you log.",
    ),
)
def no_keys(app: App) -> None:
    log, mark = Log(app), word()
    exchange = chat(app, f"{mark} hello")
    lines = log.lines(lambda text: mark in text)
    showing = [line for line in lines if app.key in line]
    expect(
        not showing,
        when="after one message",
        expected="no line with the API key in it",
        came=shown(showing),
        seen=exchange,
    )


# ---------------------------------------------------------------- the model


@check(
    MODEL,
    chapter=BULLET_4,
    needs={"logs", "llm"},
    hints=(
        "An entry names the model that answered.",
        "The API's answer says which model it was: response.model.",
        "logger.info('answered', extra={'model': response.model})",
    ),
)
def model_named(app: App) -> None:
    log, mark = Log(app), word()
    exchange = chat(app, f"{mark} hello")
    if not app.model.model.calls:
        raise NotChecked("the app did not ask the model")
    name = str(app.model.model.calls[-1].body.get("model"))
    entries = log.entries(name)
    expect(
        bool(with_word(entries, name)),
        when="after one message",
        expected=f"an entry that names the model, {name}",
        came=shown(entries),
        seen=exchange,
    )


@check(
    f"{MODEL}: the count that the API gave",
    chapter=BULLET_4,
    needs={"logs", "llm"},
    hints=(
        "An entry says how many tokens the request took: the API's own count.",
        "The answer has it in response.usage: prompt_tokens, completion_tokens, total_tokens. Do not estimate.",
        "extra={'tokens': response.usage.total_tokens}; with LangChain: message.usage_metadata['total_tokens']",
    ),
)
def tokens_counted(app: App) -> None:
    log, mark = Log(app), word()
    with reply_of(app, 1379):
        exchange = chat(app, f"{mark} how long is a piece of string?")
    if not app.model.model.calls:
        raise NotChecked("the app did not ask the model")
    prompt = sum(len(re.findall(r"\w+|[^\w\s]", text_of(m))) for m in app.model.model.calls[-1].messages)
    counts = (1379, prompt + 1379, prompt)
    entries = log.entries(mark)
    numbers = {str(value) for entry in entries for _, value in fields(entry) if not isinstance(value, (bool, float))}
    texts = " ".join(json.dumps(entry) for entry in entries)
    expect(
        any(str(count) in numbers for count in counts) or any(re.search(rf"\b{n}\b", texts) for n in counts[:2]),
        when=f"the model's answer counted {prompt} tokens in and 1379 out",
        expected="an entry with these, or with their sum",
        came=shown(entries),
        seen=exchange,
    )


@check(
    f"{MODEL}: an answer without a count is still an answer",
    chapter=BULLET_4,
    needs={"logs", "llm"},
    hints=(
        "Not every API counts tokens; then the log says null, and the user still gets the answer.",
        "Look whether usage is there before you read from it.",
        "tokens = response.usage.total_tokens if response.usage else None",
    ),
)
def tokens_missing(app: App) -> None:
    model: Any = app.model.model
    whole = model._completion
    model._completion = lambda body: {key: value for key, value in whole(body).items() if key != "usage"}
    try:
        exchange = app.chat(f"{word()} hello")
    finally:
        del model._completion
    expect(
        exchange.status == 200 and exchange.answered,
        when="a message to which the model answers without a `usage`",
        expected="200 with the model's answer",
        seen=exchange,
    )


@contextmanager
def reply_of(app: App, tokens: int) -> Iterator[None]:
    """Let the model's answers be so many tokens long."""
    model = app.model.model
    reply = model.reply
    model.reply = lambda messages: " ".join(["word"] * tokens)
    try:
        yield
    finally:
        model.reply = reply
