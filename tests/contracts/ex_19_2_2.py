"""19.2.2: messages that are empty, blank or too long are refused, each in words of its own.

Readings accepted: any status from 400 to 499 that is about the body (400, 413 and 422 are usual); any form of the
error; blank and empty may share their words; length counted before or after trimming.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours counts what a reader sees (after NFC, zero-width characters are blank), and never repeats the message."
)

BULLET_1 = "19.2.2 bullet 1"
BULLET_2 = "19.2.2 bullet 2"
BULLET_3 = "19.2.2 bullet 3"
ABOUT_OTHER_THINGS = (401, 403, 404, 405, 408, 429, 499)
TOO_LONG, EMPTY, BLANK = "x" * 1001, "", " \t\n "


def refused(exchange: Exchange) -> bool:
    """Tell whether an answer is a refusal of what was sent."""
    return 400 <= exchange.status < 500 and exchange.status not in ABOUT_OTHER_THINGS


def words(exchange: Exchange) -> str:
    """Return what a refusal says: its text without what the client sent, which some forms repeat."""
    sent = json.dumps(exchange.body[next(iter(exchange.body))])[1:-1]
    return exchange.text.replace(sent, "") if sent else exchange.text


@check(
    "Reject messages longer than 1000 characters",
    chapter=BULLET_1,
    hints=(
        "1001 characters are one too many.",
        "Give the field a maximal length.",
        "message: str = Field(max_length=1000)",
    ),
)
def too_long(app: App) -> None:
    for length in (1001, 5000):
        exchange = app.chat("x" * length)
        expect(refused(exchange), when=f"a message of {length} characters", expected="status 422 or 400", seen=exchange)


@check(
    "Reject messages longer than 1000 characters: and no others",
    chapter=BULLET_1,
    needs={"llm"},
    hints=(
        "A message of exactly 1000 characters is fine, and so is a message of one.",
        "Longer than 1000 means: refuse at 1001.",
        "if len(message) > 1000: raise ... -- or Field(min_length=1, max_length=1000)",
    ),
)
def thousand_pass(app: App) -> None:
    for message, name in (("x" * 1000, "1000 characters"), ("?", "one character"), ("0", "the digit 0")):
        exchange = app.chat(message)
        expect(
            exchange.status == 200 and exchange.answered,
            when=f"a message of {name}",
            expected="200 with the model's answer",
            seen=exchange,
        )


@check(
    "Reject messages longer than 1000 characters: characters, not bytes",
    chapter=BULLET_1,
    needs={"llm"},
    hints=(
        "A letter with an accent or an emoji is one character, though it takes several bytes.",
        "Measure the string, not what it is encoded to.",
        "len(message), and not len(message.encode()) or Content-Length",
    ),
)
def characters(app: App) -> None:
    for character, name in (("\u00e9", "990 times the letter e with an accent"), ("\U0001f600", "990 emoji")):
        exchange = app.chat(character * 990)
        expect(
            exchange.status == 200 and exchange.answered,
            when=f"a message of {name}",
            expected="200 with the model's answer: that is 990 characters",
            seen=exchange,
        )


@check(
    "Reject messages longer than 1000 characters: before the model is asked",
    chapter=BULLET_1,
    needs={"llm"},
    hints=(
        "A message that is refused must not cost anything.",
        "Check it first, and call the model afterwards; Pydantic does so before your endpoint even begins.",
        "class ChatRequest(BaseModel): message: str = Field(min_length=1, max_length=1000)",
    ),
)
def before_the_model(app: App) -> None:
    before = len(app.model.model.calls)
    refusals = [exchange for exchange in map(app.chat, (TOO_LONG, EMPTY, BLANK)) if refused(exchange)]
    if not refusals:
        raise NotChecked("nothing was refused")
    called = len(app.model.model.calls) - before
    expect(
        called <= 3 - len(refusals),
        when=f"{len(refusals)} of 3 messages were refused",
        expected="no call of the model for them",
        came=f"the model was called {called} times",
        seen=refusals[0],
    )


@check(
    "Reject empty or whitespace-only messages",
    chapter=BULLET_2,
    hints=(
        "A message without any character is refused.",
        "Give the field a minimal length.",
        "message: str = Field(min_length=1)",
    ),
)
def empty(app: App) -> None:
    exchange = app.chat(EMPTY)
    expect(refused(exchange), when="an empty message", expected="status 422 or 400", seen=exchange)


@check(
    "Reject empty or whitespace-only messages: spaces, tabs and line breaks are nothing",
    chapter=BULLET_2,
    hints=(
        "A message of spaces only is refused like an empty one.",
        "A minimal length does not see it: trim the text before you look.",
        "@field_validator('message') -> if not value.strip(): raise ValueError('the message is empty')",
    ),
)
def blank(app: App) -> None:
    for message, name in (
        ("   ", "three spaces"),
        ("\n\n", "two line breaks"),
        (BLANK, "a space, a tab and a newline"),
    ):
        exchange = app.chat(message)
        expect(refused(exchange), when=f"a message of {name}", expected="status 422 or 400", seen=exchange)


@check(
    "Return appropriate error messages for each case",
    chapter=BULLET_3,
    hints=(
        "Who sent too much reads that 1000 is the limit; who sent nothing reads something else.",
        "One sentence for each case, in the body of the answer.",
        'raise ValueError("at most 1000 characters") here, and raise ValueError("the message is empty") there',
    ),
)
def own_words(app: App) -> None:
    long, none, spaces = app.chat(TOO_LONG), app.chat(EMPTY), app.chat(BLANK)
    if not all(map(refused, (long, none, spaces))):
        raise NotChecked("not all three cases are refused")
    expect(
        re.search(r"1[,. _']?000", words(long)) is not None,
        when="a message of 1001 characters",
        expected="words that name the limit, 1000",
        seen=long,
    )
    for other, name in ((none, "an empty message"), (spaces, "a message of spaces")):
        expect(
            re.sub(r"\d+", "", words(other)) != re.sub(r"\d+", "", words(long)) and len(words(other)) > 10,
            when=f"{name}; a message that is too long was told {words(long)[:150]}",
            expected="words of its own",
            seen=other,
        )


@check(
    "Return appropriate error messages for each case: also for what is no message at all",
    chapter=BULLET_3,
    hints=(
        "A body of another kind is the client's mistake: 4xx, never 500.",
        "Let FastAPI read the body into your Pydantic model, which refuses what does not fit.",
        "async def chat(body: ChatRequest) -- and not await request.json()",
    ),
)
def never_500(app: App) -> None:
    field = app.manner.text_field
    bodies: dict[str, dict[str, Any]] = {
        "a number for the message": {field: 42},
        "null for the message": {field: None},
        "a list for the message": {field: ["hello"]},
        "an object for the message": {field: {"text": "hello"}},
        "no message": {},
    }
    for name, body in bodies.items():
        exchange = app.send("POST", app.manner.path, key=app.key, body={**app.manner.extra, **body})
        expect(refused(exchange), when=f"a body with {name}", expected="status 422 or 400", seen=exchange)
    raw = {
        "no body": b"",
        "broken JSON": b'{"' + field.encode() + b'": "hel',
        "a list": b"[1]",
        "bytes": b"\xff\xfe\x00",
    }
    for name, content in raw.items():
        json_type = {"Content-Type": "application/json"}
        exchange = app.send("POST", app.manner.path, key=app.key, content=content, headers=json_type)
        expect(refused(exchange), when=f"{name} in place of a message", expected="status 422 or 400", seen=exchange)
    exchange = app.chat("a NUL \x00 in the middle")
    expect(
        exchange.status == 200 or refused(exchange),
        when="a message with a NUL character in it",
        expected="an answer or a refusal",
        seen=exchange,
    )
