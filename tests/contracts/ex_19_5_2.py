"""19.5.2: a queue with request IDs and a status endpoint.

Readings accepted: a queue behind the chat's endpoint, or behind one of its own beside it (`/v1/chat/async`); any 2xx
for what was accepted; the request ID under any name, in the body or as the last part of `Location`;
`/status/{request_id}` or `/v1/status/{request_id}`; any usual word for a state (queued, pending, waiting; processing,
running, in progress; completed, done, success; failed, error); no position, or one that counts from 0 or from 1, under
any name; up to ten requests at work at a time; 404 or 410 for an id that nobody has.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from shared.offline import BadRequest, text_of
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = "ours refuses when the line is full, and forgets results in time: how long does yours remember?"

BULLETS = [f"19.5.2 bullet {number}" for number in range(1, 6)]
WAITING = {
    "queued",
    "pending",
    "waiting",
    "enqueued",
    "accepted",
    "received",
    "submitted",
    "in queue",
    "created",
    "new",
}
WORKING = {"processing", "running", "in progress", "started", "working", "active", "executing"}
DONE = {"completed", "complete", "done", "finished", "success", "succeeded", "successful", "ready", "ok"}
FAILED = {"failed", "failure", "error", "errored", "fail"}
AT_WORK = 10  # the chapter's pattern says five; nobody's queue needs more on one machine
PATIENCE_S = 6.0
FAIL = "please fail"
QUEUES = re.compile(r"async|queue|submit|job|task|request|background", re.IGNORECASE)
entrances: WeakKeyDictionary[App, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Ticket:
    """What came back for a message, and every value in it that may be the request's id."""

    message: str
    accepted: Exchange
    candidates: tuple[str, ...]


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of a JSON document with the names that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from flat(inner, f"{name}[]")
    else:
        yield name, value


def ids_in(exchange: Exchange) -> tuple[str, ...]:
    """Return what may be a request ID, the likeliest first."""
    found = []
    if location := exchange.headers.get("location"):
        found.append(location.rstrip("/").rpartition("/")[2])
    values = [(name.lower(), value) for name, value in flat(exchange.json()) if not isinstance(value, bool | float)]
    values.sort(key=lambda item: ("request" not in item[0], not item[0].endswith("id")))
    found += [str(value) for _, value in values if isinstance(value, int) or (isinstance(value, str) and value)]
    return tuple(dict.fromkeys(value for value in found if re.fullmatch(r"[\w.:-]{1,80}", value)))


def numbers_in(exchange: Exchange, ticket: Ticket) -> Iterator[tuple[str, int]]:
    """Yield the whole numbers in a status, without the request's own ID."""
    for name, value in flat(exchange.json()):
        if isinstance(value, int) and not isinstance(value, bool) and str(value) not in ticket.candidates[:1]:
            yield name, value


def submit(app: App, message: str) -> Ticket:
    """Send a message; what is not accepted cannot be followed."""
    body = {app.manner.text_field: message, **app.manner.extra}
    exchange = app.send("POST", entrance(app), key=app.key, body=body)
    return Ticket(message, exchange, ids_in(exchange))


def entrance(app: App) -> str:
    """Return where messages are queued: some leave the chat as it is and open a second endpoint beside it."""
    if app not in entrances:
        schema = app.send("GET", "/openapi.json").json() or {}
        beside = [path for path in schema.get("paths", {}) if QUEUES.search(path) and takes_messages(app, schema, path)]
        known = QUEUES.search(app.manner.path) or not beside
        entrances[app] = app.manner.path if known else min(beside, key=len)
        note = f"messages are queued at POST {entrances[app]}"
        if not known and note not in app.manner.notes:
            app.manner.notes.append(note)
    return entrances[app]


def takes_messages(app: App, schema: dict[str, Any], path: str) -> bool:
    """Tell whether a path takes by POST what the chat takes."""
    with contextlib.suppress(KeyError):
        body = schema["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        body = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]] if "$ref" in body else body
        return "{" not in path and app.manner.text_field in body["properties"]
    return False


def ask(app: App, ticket: Ticket) -> Exchange | None:
    """Ask for the status of a request; None when no id and no path leads to it."""
    for candidate in ticket.candidates:
        for prefix in ("/status/", "/v1/status/"):
            exchange = app.send("GET", prefix + candidate, key=app.key)
            if 200 <= exchange.status < 300:
                return exchange
    return None


def follow(app: App, ticket: Ticket) -> Exchange:
    """Ask for the status of a request; without an answer there is nothing more to look at."""
    exchange = ask(app, ticket)
    if exchange is None:
        raise NotChecked("no id in the answer to a chat is known to GET /status/{request_id}")
    return exchange


def state(exchange: Exchange) -> str:
    """Return "waiting", "working", "done", "failed" or "" for a status whose words are its own."""
    words = [value for name, value in flat(exchange.json()) if isinstance(value, str)]
    found = {re.sub(r"[\W_]+", " ", word).strip().lower() for word in words}
    for name, names in (("failed", FAILED), ("waiting", WAITING), ("working", WORKING), ("done", DONE)):
        if found & names:
            return name
    return "done" if exchange.answered else ""


def ended(app: App, ticket: Ticket) -> Exchange:
    """Ask until the request has ended, and return the last answer."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        exchange = follow(app, ticket)
        if exchange.answered or state(exchange) in ("done", "failed") or time.monotonic() > deadline:
            return exchange
        time.sleep(0.03)


@contextlib.contextmanager
def model(app: App, *, delay_s: float = 0.0) -> Iterator[None]:
    """Let the model take its time, and refuse every message that asks for it."""
    stand_in = app.model.model
    reply: Callable[[list[dict[str, Any]]], str] = stand_in.reply

    def refuse(messages: list[dict[str, Any]]) -> str:
        if FAIL in text_of(messages[-1]):
            raise BadRequest("The stand-in was asked to fail.")
        return reply(messages)

    stand_in.reply, stand_in.delay_s = refuse, delay_s
    try:
        yield
    finally:
        stand_in.reply, stand_in.delay_s = reply, 0.0


@contextlib.contextmanager
def silent_model(app: App) -> Iterator[Callable[[], None]]:
    """Let the model keep every answer back until the function given along is called."""
    stand_in, answered = app.model.model, threading.Event()
    stand_in.may_answer = answered.is_set
    try:
        yield answered.set
    finally:
        answered.set()
        stand_in.may_answer = None


def clear(app: App, tickets: list[Ticket]) -> None:
    """Let what is still in line pass quickly, so that the next check finds an empty queue."""
    app.model.model.delay_s = 0.0
    with contextlib.suppress(NotChecked):
        for ticket in tickets:
            ended(app, ticket)


def asked(app: App, tag: str) -> list[int]:
    """Return the numbers of the messages "TAG number N" in the order in which they reached the model."""
    found = []
    for call in app.model.model.calls.copy():  # at once: the stand-in adds to it in its own thread
        last = json.dumps(call.messages[-1:])
        if match := re.search(rf"{tag} number (\d+)", last):
            found.append(int(match[1]))
    return list(dict.fromkeys(found))


@check(
    "Accepts requests even when the server is busy",
    chapter=BULLETS[0],
    needs={"llm"},
    hints=(
        "Twenty requests come while the model still works on the first ones: none may be turned away.",
        "The endpoint must not call the model. It puts the request into a queue and returns.",
        "queue.put_nowait(request), and asyncio.create_task(worker()) in the lifespan takes them out again.",
    ),
)
def accepts_when_busy(app: App) -> None:
    with model(app, delay_s=0.3), ThreadPoolExecutor(20) as pool:
        tickets = list(pool.map(lambda n: submit(app, f"What is {n} + 1?"), range(20)))
        for ticket in tickets:
            expect(
                200 <= ticket.accepted.status < 300,
                when="20 requests at the same moment, while the model takes 0.3 s for each",
                expected="each of them accepted (a 2xx status, best 202)",
                seen=ticket.accepted,
            )
        clear(app, tickets)


@check(
    "Processes them in order",
    chapter=BULLETS[1],
    needs={"llm"},
    hints=(
        "What came first must be started first.",
        "asyncio.Queue hands out in order of arrival; a list with pop() hands out the newest.",
        "request = await self.queue.get() in every worker, and nothing that sorts or shuffles.",
    ),
)
def in_order(app: App) -> None:
    tag = f"order{uuid.uuid4().hex[:6]}"
    with model(app, delay_s=0.2):
        tickets = [submit(app, f"{tag} number {number}") for number in range(16)]
        for ticket in tickets:
            ended(app, ticket)
    order = asked(app, tag)
    late = [number for place, number in enumerate(order) if abs(place - number) > 5]
    expect(
        not late,
        when="16 requests, one after the other",
        expected="they reach the model in this order (those that are worked on together in any)",
        came=f"the model got them in the order {order}",
        seen=tickets[0].accepted,
    )


@check(
    "Processes them in order: a few at a time, the others wait",
    chapter=BULLETS[1],
    needs={"llm"},
    hints=(
        "A queue is there so that the agent is not asked everything at once: the chapter's pattern works on five.",
        "Start a fixed number of workers, each in a loop of its own, in place of one task for each request.",
        "for _ in range(self.max_concurrent): asyncio.create_task(self._worker())",
    ),
)
def few_at_once(app: App) -> None:
    tag = f"many{uuid.uuid4().hex[:6]}"
    with model(app, delay_s=0.7), ThreadPoolExecutor(15) as pool:
        sent = [pool.submit(submit, app, f"{tag} number {number}") for number in range(15)]
        time.sleep(0.4)
        at_work = len(asked(app, tag))
        tickets = [answer.result() for answer in sent]
        clear(app, tickets)
    expect(
        at_work <= AT_WORK,
        when="15 requests at the same moment, while the model takes 0.7 s for each",
        expected="five at work (max_concurrent in the chapter's pattern), the others waiting",
        came=f"{at_work} of them at the model at the same time",
        seen=tickets[0].accepted,
    )


@check(
    'Returns a "request ID" immediately',
    chapter=BULLETS[2],
    needs={"llm"},
    hints=(
        "The answer to POST comes before the model's, and has an id that no other request has.",
        "Make the id with uuid.uuid4(), remember the request under it, and return it with status 202.",
        'return JSONResponse({"request_id": request_id, "status": "queued"}, status_code=202)',
    ),
)
def id_at_once(app: App) -> None:
    count = AT_WORK + 3
    with silent_model(app) as let_it_answer, ThreadPoolExecutor(count) as pool:
        sent = [pool.submit(submit, app, "What is 6 * 7?") for _ in range(count)]
        at_once, _ = concurrent.futures.wait(sent, timeout=PATIENCE_S)
        let_it_answer()
        tickets = [answer.result() for answer in sent]
    accepted = [ticket for ticket in tickets if 200 <= ticket.accepted.status < 300]
    clear(app, accepted)
    expect(
        len(at_once) == count,
        when=f"{count} requests, while the model does not answer any",
        expected="a request ID at once for each, and the answer later",
        came=f"{len(at_once)} of them were answered in {PATIENCE_S:.0f} s, the others when the model had answered",
        seen=tickets[0].accepted,
    )
    if len(accepted) < 3:
        raise NotChecked(f"of {count} requests only {len(accepted)} were accepted")
    first, second, third = accepted[:3]
    own = set(first.candidates) - set(second.candidates) - set(third.candidates)
    expect(
        bool(own) and second.candidates != third.candidates,
        when="the same message three times",
        expected="a request ID of its own for each, in the body",
        seen=first.accepted,
    )


@check(
    "Provides a /status/{request_id} endpoint to check progress",
    chapter=BULLETS[3],
    needs={"llm"},
    hints=(
        "GET /status/ with the id from the POST tells how far the request is: waiting or at work, and later done.",
        "Keep a status in the object that you remember under the id, and change it in the worker.",
        'queued.status = "processing" before the model is asked, and "completed" after.',
    ),
)
def progress(app: App) -> None:
    with model(app, delay_s=0.8):
        ticket = submit(app, "What is 6 * 7?")
        if not ticket.candidates or ticket.accepted.answered:
            raise NotChecked("the answer to a chat carries no request ID")
        before = ask(app, ticket)
        missing = app.send("GET", f"/status/{ticket.candidates[0]}", key=app.key)
        expect(
            before is not None,
            when=f"the status of a request whose POST was answered {ticket.accepted.came()[:120]}",
            expected="status 200 from GET /status/{request_id}",
            seen=missing,
        )
        assert before is not None
        expect(
            state(before) in ("waiting", "working"),
            when="the status of a request while the model still works on it",
            expected='a state like "queued" or "processing"',
            seen=before,
        )
        after = ended(app, ticket)
    expect(
        state(after) == "done",
        when="the status of the same request after the model has answered",
        expected='a state like "completed"',
        seen=after,
    )


@check(
    "Provides a /status/{request_id} endpoint to check progress: with the position in the queue",
    chapter=BULLETS[3],
    needs={"llm"},
    beyond=True,  # a comment in the chapter's pattern speaks of it, no bullet does
    hints=(
        "The chapter's get_status returns the current status and the position in queue.",
        "The position is one more than the number of waiting requests that came earlier; it shrinks as they start.",
        'waiting = [r for r in requests.values() if r.status == "queued"]; position = waiting.index(request) + 1',
    ),
)
def position(app: App) -> None:
    with model(app, delay_s=0.6):
        tickets = [submit(app, "What is 0 + 1?")]
        if tickets[0].accepted.answered:
            raise NotChecked("the answer comes with the POST, so nobody waits")
        tickets += [submit(app, f"What is {number} + 1?") for number in range(1, AT_WORK + 5)]
        right, last = False, None
        for _ in range(4):  # one may start between two looks
            stands = [dict(numbers_in(follow(app, ticket), ticket)) for ticket in tickets[-4:]]
            last = follow(app, tickets[-1])
            for name, value in stands[0].items():
                series = [stand.get(name) for stand in stands]
                right = right or series == [value + step for step in range(4)]
        clear(app, tickets)
    assert last is not None
    if not right and state(last) != "waiting":
        raise NotChecked("of 15 requests at once none was waiting")
    expect(
        right,
        when=f"the statuses of the last 4 of {len(tickets)} requests, all of them waiting",
        expected="the position in queue, as the chapter's get_status returns it: by one larger for each later request",
        came=f"the last one: {last.came()}",
        seen=last,
    )


@check(
    "Provides a /status/{request_id} endpoint to check progress: an unknown id is a 404",
    chapter=BULLETS[3],
    needs={"llm"},
    hints=(
        "An id that was never given out has no status.",
        "Look the id up with .get(), and answer 404 when nothing is there.",
        'raise HTTPException(404, "no such request")',
    ),
)
def unknown_id(app: App) -> None:
    follow(app, submit(app, "What is 6 * 7?"))
    exchange = app.send("GET", f"/status/{uuid.uuid4()}", key=app.key)
    expect(
        exchange.status in (404, 410),
        when="the status of a request ID that nobody has",
        expected="status 404",
        seen=exchange,
    )


@check(
    "Returns results when ready",
    chapter=BULLETS[4],
    needs={"llm"},
    hints=(
        "When the model has answered, the status carries the answer: everybody their own.",
        "Store what the agent returned in the object under the request's id.",
        "queued.result = reply; queued.status = 'completed' -- and return both from /status/{request_id}.",
    ),
)
def result(app: App) -> None:
    sums = {f"What is {number} * 1000?": str(number * 1000) for number in range(3, 9)}
    with model(app, delay_s=0.1):
        tickets = [submit(app, message) for message in sums]
        for ticket in tickets:
            exchange = ended(app, ticket)
            expect(
                exchange.answered and sums[ticket.message] in exchange.text,
                when=f'the status of the request "{ticket.message}", after the model has answered',
                expected="the model's answer to this message",
                seen=exchange,
            )


@check(
    "Returns results when ready: and says so when there will be none",
    chapter=BULLETS[4],
    needs={"llm"},
    hints=(
        "When the model refuses, the request has failed; who waits for it must be told.",
        "Put try/except around the call in the worker, and remember what happened under the request's id.",
        'except Exception: logger.exception("..."); queued.status = "failed"',
    ),
)
def failure(app: App) -> None:
    with model(app):
        ticket = submit(app, FAIL)
        exchange = ended(app, ticket)
    excuse = state(exchange) == "done" and re.search(r"error|fail|sorry", exchange.text, re.IGNORECASE)
    expect(
        state(exchange) == "failed" or bool(excuse),
        when=f"{PATIENCE_S:.0f} s after the model has refused a request",
        expected='a state like "failed"',
        seen=exchange,
    )


@check(
    "Returns results when ready: also after others have failed",
    chapter=BULLETS[4],
    needs={"llm"},
    hints=(
        "A request that fails must not take the worker along.",
        "An exception that leaves the worker's loop ends the worker, and the queue stands still.",
        "Put the try inside the while loop, not around it.",
    ),
)
def survives(app: App) -> None:
    with model(app):
        for _ in range(AT_WORK + 2):
            submit(app, FAIL)
        ticket = submit(app, "What is 6 * 7?")
        exchange = ended(app, ticket)
    expect(
        exchange.answered or state(exchange) == "done",
        when=f"{PATIENCE_S:.0f} s after a request that came behind {AT_WORK + 2} failing ones",
        expected="the model's answer",
        seen=exchange,
    )
