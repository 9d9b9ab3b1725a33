"""19.2.1: list the conversations, and show the messages of one.

Readings accepted: any shape of the two answers (ids in a list or a mapping, alone or with details; messages oldest or
newest first, one by one or question and answer together, the role beside the text or around it); any name of the field
that carries the id, in the body or in the query, another one in the answer, chosen by the client or by the app (or a
default for all who name none); parallel turns in one conversation one after the other, or
refused; a caller who names someone else's id is refused or begins afresh. A turn that failed may leave its question,
as LangGraph's checkpoints do, and then its conversation is listed.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from shared.offline import Fault
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours keeps one checkpoint per conversation: the saver's default keeps the whole history once for every turn."
)

BULLET_1 = "19.2.1 bullet 1"
BULLET_2 = "19.2.1 bullet 2"
LIST = "/v1/conversations"
AT_ONCE = 5
NOBODYS_KEY = "wrong-key-of-nobody"


@dataclass(frozen=True)
class Leaf:
    """One value in a JSON answer: where it stands (its key and its siblings) and its text."""

    key: str
    text: str
    siblings: tuple[str, ...]


def leaves(data: Any, key: str = "", around: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Return all values of a JSON answer in reading order; the keys of a mapping count as values of it too."""
    if not isinstance(data, dict | list):
        yield Leaf(key, str(data), around)
        return
    items = list(data.items()) if isinstance(data, dict) else [(key, value) for value in data]
    of_one = isinstance(data, dict) or len(data) <= 3  # a longer list holds messages, not the parts of one
    beside = (*around, *(value for _, value in items if isinstance(value, str))) if of_one else ()
    for name, value in items:
        if isinstance(data, dict):
            yield Leaf("", name, ())
        yield from leaves(value, name, beside)


def entries(data: Any, text: str) -> int:
    """Return how many entries the list or mapping has in which this text stands; 0 when it stands nowhere."""
    if isinstance(data, dict | list):
        children = list(data.values()) if isinstance(data, dict) else data
        if inside := max((entries(child, text) for child in children if isinstance(child, list)), default=0):
            return inside
        if any(text in {leaf.text for leaf in leaves(child)} for child in children) or (
            isinstance(data, dict) and text in data
        ):
            deeper = max((entries(child, text) for child in children if isinstance(child, dict)), default=0)
            return max(len(data), deeper)
    return 0


def said(text: str) -> str:
    """Return a message that nobody has sent before; in letters, so that the stand-in echoes it."""
    return f"{text} " + "".join(secrets.choice("bcdfghklmnprst") for _ in range(8))


def chat(app: App, message: str, field: str = "", id: str = "", key: str | None = None) -> Exchange:
    """Send a message, into a conversation if one is named; a field of the query is called "?name"."""
    in_query = field.startswith("?")
    body = {app.manner.text_field: message, **app.manner.extra, **({field: id} if field and not in_query else {})}
    path = app.manner.path + (f"{field}={id}" if in_query else "")
    return app.send("POST", path, key=key or app.key, body=body)


def id_field(app: App, answered: str = "") -> str:
    """Return what carries the id in a request: what the app's schema says, else the name that the answer gives it."""
    fields = [name for name in app.manner.takes if re.search("conversation|session|thread|chat|id$", name.lower())]
    if answered in fields or f"?{answered}" in fields:
        return answered if answered in fields else f"?{answered}"
    return fields[0] if fields else answered if answered not in ("", "id") else "conversation_id"


def fresh(app: App) -> tuple[str, str]:
    """Return the field and a new id, where a client must choose one itself; else nothing."""
    field = id_field(app)
    return (field, str(uuid.uuid4())) if field in app.manner.extra else ("", "")


def listing(app: App, key: str | None = None) -> Exchange:
    """Ask for the list."""
    return app.send("GET", LIST, key=key or app.key)


def stranger(app: App) -> str:
    """Return another caller's key, or where only one is accepted a wrong one."""
    return NOBODYS_KEY if len(app.manner.keys) < 2 and app.manner.checks_keys else app.other_key


def history(app: App, id: str, key: str | None = None) -> Exchange:
    """Ask for the messages of one conversation."""
    return app.send("GET", f"{LIST}/{id}", key=key or app.key)


def begin(app: App, message: str, key: str | None = None) -> tuple[str, str]:
    """Begin a conversation; returns its id and the field that carries it. Raises NotChecked when none is found."""
    for field, chosen in (fresh(app), (id_field(app), str(uuid.uuid4()))):
        before = {leaf.text for leaf in leaves(listing(app, key).json())}
        answer = chat(app, message, field, chosen, key=key)
        if answer.status != 200:
            raise NotChecked(f"the chat answered {answer.status}")
        after = {leaf.text for leaf in leaves(listing(app, key).json())}
        named = [leaf for leaf in leaves(answer.json()) if leaf.key and leaf.text in after - before]
        if named:
            return named[0].text, field or id_field(app, named[0].key)
        if chosen in after:
            return chosen, field
        if len(new := after - before) == 1:
            return new.pop(), field or id_field(app)
    raise NotChecked(f"the list at {LIST} does not show which conversation the chat began")


def two_turns(app: App) -> tuple[str, str, list[str]]:
    """Take two turns in one conversation; returns its id, its field and the two messages."""
    first, second = said("first"), said("second")
    id, field = begin(app, first)
    answer = chat(app, second, field, id)
    if answer.status != 200:
        raise NotChecked(f"the second turn, sent with {field}, was answered {answer.status}")
    return id, field, [first, second]


def spoken(app: App, exchange: Exchange, messages: list[str]) -> list[tuple[str, str, Leaf]]:
    """Find the messages in a history: ("question" or "answer", the message, where it stands), in reading order."""
    found = []
    for leaf in leaves(exchange.json()):
        for message in messages:
            if message in leaf.text:
                found.append(("answer" if app.model.said(leaf.text) else "question", message, leaf))
    return found


@check(
    "GET /v1/conversations - List all conversation IDs",
    chapter=BULLET_1,
    hints=(
        "Every conversation that a caller has begun stands in the list.",
        "Note the id when a turn has ended, and return all noted ids, with the same key in X-API-Key as the chat.",
        '@app.get("/v1/conversations") -> {"conversations": list(ids of this key)}',
    ),
)
def listed(app: App) -> None:
    answers = [chat(app, said("hello"), *fresh(app)) for _ in range(3)]
    exchange = listing(app)
    expect(exchange.status == 200, when="a caller asks for the list", expected="status 200", seen=exchange)
    shown = {leaf.text for leaf in leaves(exchange.json())}
    for number, answer in enumerate(answers, 1):
        if answer.status != 200:
            raise NotChecked(f"the chat answered {answer.status}")
        ids = [leaf.text for leaf in leaves(answer.json()) if leaf.key]
        expect(
            any(id in shown for id in ids) or len(shown) >= len(answers),
            when=f"three conversations have begun; number {number} was answered {answer.text[:120]}",
            expected="its id in the list",
            seen=exchange,
        )
    field, chosen = id_field(app), str(uuid.uuid4())
    answer = chat(app, said("hello"), field, chosen)
    if answer.status == 200 and chosen in answer.text:
        exchange = listing(app)
        expect(
            chosen in exchange.text,
            when=f"a client has begun a conversation under an id of its own, {field}: {chosen}",
            expected="this id in the list",
            seen=exchange,
        )


@check(
    "GET /v1/conversations - List all conversation IDs: a caller's own, and nobody else's",
    chapter=BULLET_1,
    hints=(
        "The list belongs to the key that asks.",
        "Keep the ids by key: one list for each caller.",
        "owned = conversations.setdefault(api_key, []) -- and the endpoint returns only that one.",
    ),
)
def list_own(app: App) -> None:
    other = stranger(app)
    id, _ = begin(app, said("mine"))
    exchange = listing(app, other)
    expect(
        id not in exchange.text,
        when=f"one key has begun the conversation {id}, and someone asks for the list with the key {other}",
        expected="a list without it",
        seen=exchange,
    )


@check(
    "GET /v1/conversations - List all conversation IDs: a call of the model that failed leaves none",
    chapter=BULLET_1,
    needs={"llm"},
    hints=(
        "When the model does not answer, no conversation has begun that has nothing in it.",
        "Note the id after the answer has come, not before asking for it.",
        "reply = await ask(...) first; the line that adds the id to the list comes after it.",
    ),
)
def no_ghost(app: App) -> None:
    id, _ = begin(app, said("real"))
    known = listing(app)
    before, ghost = entries(known.json(), id), said("ghost")
    app.model.next(Fault(status=400))
    try:
        failed = chat(app, ghost)
    finally:
        app.model.model._faults.clear()
    if failed.status == 200:
        raise NotChecked("the chat answered 200 though the model had refused")
    exchange = listing(app)
    if entries(exchange.json(), id) == before + 1 and shows_new(app, known, exchange, ghost):
        return
    expect(
        entries(exchange.json(), id) == before,
        when=f"the model refused a call, and the chat answered {failed.status}",
        expected="the list as it was before, or one more that shows what was asked",
        seen=exchange,
    )


def shows_new(app: App, before: Exchange, after: Exchange, message: str) -> bool:
    """Tell whether what is new in the list is a conversation in which this message stands."""
    known = {leaf.text for leaf in leaves(before.json())}
    new = {leaf.text for leaf in leaves(after.json()) if re.fullmatch(r"[\w.:~-]+", leaf.text)} - known
    return any(shown.status == 200 and message in shown.text for shown in (history(app, id) for id in new))


@check(
    "GET /v1/conversations/{id} - Get messages for a specific conversation",
    chapter=BULLET_2,
    needs={"llm"},
    hints=(
        "Questions and answers of this conversation, all of them, in order.",
        'The agent has them: its state under the thread id of this conversation, in the key "messages".',
        'state = await graph.aget_state({"configurable": {"thread_id": id}}); state.values["messages"]',
    ),
)
def messages(app: App) -> None:
    id, _, sent = two_turns(app)
    begin(app, elsewhere := said("elsewhere"))
    exchange = history(app, id)
    found = [(kind, message) for kind, message, _ in spoken(app, exchange, sent)]
    wanted = [(kind, message) for message in sent for kind in ("question", "answer")]
    expect(
        exchange.status == 200 and found in (wanted, wanted[::-1]),
        when=f"two turns in conversation {id}: {sent[0]}, then {sent[1]}",
        expected="both questions and both answers, once each, in order",
        seen=exchange,
    )
    expect(
        elsewhere not in exchange.text,
        when=f"{elsewhere} was said in another conversation",
        expected=f"only what was said in {id}",
        seen=exchange,
    )


@check(
    "GET /v1/conversations/{id} - Get messages for a specific conversation: and who said them",
    chapter=BULLET_2,
    needs={"llm"},
    hints=(
        "A reader must see which message is the user's and which the assistant's.",
        "Give each message its role beside its content.",
        '{"role": "user" if message.type == "human" else "assistant", "content": message.content}',
    ),
)
def roles(app: App) -> None:
    id, _, sent = two_turns(app)
    exchange = history(app, id)
    found = spoken(app, exchange, sent)
    if {kind for kind, _, _ in found} != {"question", "answer"}:
        raise NotChecked("the messages are not there")
    marks: dict[str, set[str]] = {}
    for kind, message, leaf in found:
        before_it = leaf.text.partition("[stand-in]")[0].partition(message)[0]
        mark = {f"{leaf.key}=", f"{before_it}:", *leaf.siblings} - {leaf.text}
        marks[kind] = marks.get(kind, mark) & mark
    expect(
        marks["question"] != marks["answer"],
        when=f"two turns in conversation {id}",
        expected="something that tells the user's messages from the assistant's",
        seen=exchange,
    )


@check(
    "GET /v1/conversations/{id} - Get messages for a specific conversation: only for the key that made it",
    chapter=BULLET_2,
    hints=(
        "Someone else's conversation is a 404, and so is one that never was: nobody can tell which.",
        "Look the id up among this key's own before anything else, and raise one and the same HTTPException(404).",
        'if id not in owned.get(api_key, ()): raise HTTPException(404, "no such conversation")',
    ),
)
def own_only(app: App) -> None:
    other = app.other_key
    id, _ = begin(app, secret := said("secret"))
    foreign = history(app, id, other)
    unknown_id = "".join(secrets.choice("0123456789abcdef") if c.isalnum() else c for c in id)
    unknown = history(app, unknown_id, other)
    expect(
        foreign.status == 404 and secret not in foreign.text,
        when=f"one key has begun the conversation {id}, and another key asks for it",
        expected="status 404",
        seen=foreign,
    )
    expect(
        unknown.status == 404 and unknown.text.replace(unknown_id, "ID") == foreign.text.replace(id, "ID"),
        when=f"someone asks for {unknown_id}, which never was; for someone else's {id} the answer was {foreign.text}",
        expected="status 404, and the very same words: otherwise ids can be guessed",
        seen=unknown,
    )


@check(
    "GET /v1/conversations/{id} - Get messages for a specific conversation: nobody else can go on with it",
    chapter=BULLET_2,
    needs={"llm"},
    hints=(
        "Who sends someone else's conversation id must neither read its history through the model nor add to it.",
        "Check the owner in the chat endpoint too, or let the key be a part of the thread id.",
        'thread_id = f"{caller}/{conversation_id}"',
    ),
)
def continued(app: App) -> None:
    other = app.other_key
    id, field = begin(app, secret := said("secret"))
    seen_before = len(app.model.model.calls)
    intruder = chat(app, meddling := said("meddling"), field, id, other)
    calls = list(app.model.model.calls)[seen_before:]
    expect(
        not any(secret in str(call.body) for call in calls) and secret not in intruder.text,
        when=f"another key sends {field}: {id}, in which {secret} was said",
        expected="a refusal, or a new conversation: the model must not be told what the first key said",
        came=f"the model was sent {secret}",
        seen=intruder,
    )
    exchange = history(app, id)
    expect(
        meddling not in exchange.text,
        when=f"another key has sent {meddling} with {field}: {id}",
        expected="the history without it",
        seen=exchange,
    )


@check(
    "GET /v1/conversations/{id} - Get messages for a specific conversation: nothing is lost when turns overlap",
    chapter=BULLET_2,
    needs={"llm"},
    beyond=True,  # the chapter's own agent loses them
    hints=(
        "Turns that arrive at the same moment in one conversation must all be in its history.",
        "Two runs on one thread start from the same history, and one overwrites the other: let one in at a time.",
        "async with locks[conversation_id]: around the call of the agent -- or answer the second one with 409.",
    ),
)
def parallel(app: App) -> None:
    id, field, earlier = two_turns(app)
    if len(spoken(app, history(app, id), earlier)) != 4:
        raise NotChecked("the history does not show questions and answers of two turns, one after the other")
    sent = [said("turn") for _ in range(AT_ONCE)]
    with slow(app), ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda message: chat(app, message, field, id), sent))
    taken = [message for message, answer in zip(sent, answers, strict=True) if answer.status == 200]
    exchange = history(app, id)
    found = [(kind, message) for kind, message, _ in spoken(app, exchange, sent)]
    lost = [message for message in taken for kind in ("question", "answer") if found.count((kind, message)) != 1]
    expect(
        not lost,
        when=f"{AT_ONCE} turns at the same moment in one conversation, {len(taken)} of them answered with 200",
        expected="question and answer of each of these in the history, once",
        came=f"{len(found)} messages of {2 * len(taken)}: {exchange.came()}",
        seen=exchange,
    )
    pairs = [message for _, message in found]
    expect(
        pairs[::2] == pairs[1::2],
        when=f"{AT_ONCE} turns at the same moment in one conversation",
        expected="each answer next to its question",
        seen=exchange,
    )


@contextlib.contextmanager
def slow(app: App) -> Iterator[None]:
    """Let the model take its time, so that turns do overlap."""
    app.model.model.delay_s = 0.05
    try:
        yield
    finally:
        app.model.model.delay_s = 0.0
