"""Exercise 19.2.2: what passes, what is refused in which words, and that no body makes the app fail or echo."""

import contextlib
import json
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from exercise_2_19_2_solution import (
    BodyLimit,
    ChatMessage,
    checked,
    create_app,
    field_problems,
    invisible,
    main,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from shared.config import Settings
from shared.offline import Fault, OfflineModel

KEY = {"X-API-Key": "key-a"}
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one picture, five characters
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"


def kind_of(text: str) -> str:
    """Return the type of the refusal, "" when there is none."""
    try:
        checked(text)
    except PydanticCustomError as error:
        return error.type
    return ""


# ---------------------------------------------------------------- the message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "message_empty"),
        (" ", "message_blank"),
        ("\t\r\n \u00a0\u3000", "message_blank"),
        ("\u200b\u200d\ufeff\u2060\u00ad", "message_blank"),
        ("\x00\x01\x7f\x85", "message_blank"),
        ("\u3164\u2800\ufe0f\u202e", "message_blank"),
        (" " * 5000, "message_blank"),
        ("x" * 1001, "message_too_long"),
        ("\U0001f600" * 1001, "message_too_long"),
        ("e\u0301" * 1001, "message_too_long"),
        ("x\x00y", "message_unreadable"),
        ("x\x1b[31m", "message_unreadable"),
        ("x\x85y", "message_unreadable"),
        ("x" * 1000, ""),
        ("  " + "x" * 1000 + " \n" * 3000, ""),
        ("\U0001f600" * 1000, ""),
        ("e\u0301" * 1000, ""),
        ("\u0390" * 1000, ""),
        (unicodedata.normalize("NFD", "\u1f82" * 1000), ""),
        ("x", ""),
        ("0", ""),
        ("two\nlines\tand a tab\r\n.", ""),
        (FAMILY, ""),
        (ENGLAND, ""),
        ("\u0301", ""),
    ],
)
def test_what_passes_and_what_is_refused(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_variation_selectors_are_invisible_and_their_neighbours_are_not() -> None:
    assert [invisible(character) for character in "\ufdfd\ufe00\ufe0f\ufe10"] == [False, True, True, False]


def test_a_message_comes_out_trimmed_and_composed_and_otherwise_as_it_was() -> None:
    assert checked(" \ncafe\u0301  au lait ") == "caf\u00e9  au lait"
    assert checked(FAMILY) == FAMILY
    assert checked(ENGLAND) == ENGLAND


def test_the_refusal_says_how_long_it_was_and_how_long_it_may_be() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        checked("x" * 1234)
    assert caught.value.message() == "The message has 1234 characters; 1000 are allowed."


def test_accents_without_end_are_refused_before_they_cost_anything() -> None:
    for length, kind in ((4000, "message_too_long"), (4001, "message_too_long"), (40_000, "message_too_long")):
        assert kind_of("\u0301\u0316" * (length // 2) + "e" * (length % 2)) == kind
    with pytest.raises(PydanticCustomError, match="has 40000 characters"):
        checked("e\u0301" * 20_000)  # not composed: that would say 20000
    with pytest.raises(PydanticCustomError, match="has 4002 characters"):
        checked("e\u0301" * 2001)
    with pytest.raises(PydanticCustomError, match="has 2000 characters"):
        checked("e\u0301" * 2000)


@given(st.text(st.characters(), max_size=1200))
def test_the_verdict_agrees_with_the_rules_written_down_plainly(text: str) -> None:
    composed = unicodedata.normalize("NFC", text.strip())
    if text == "":
        assert kind_of(text) == "message_empty"
    elif all(invisible(character) for character in text):
        assert kind_of(text) == "message_blank"
    elif len(composed) > 1000:
        assert kind_of(text) == "message_too_long"
    elif any((c < " " and c not in "\t\n\r") or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in composed):
        assert kind_of(text) == "message_unreadable"
    else:
        assert checked(text) == composed
        assert checked(composed) == composed
        assert unicodedata.is_normalized("NFC", checked(text))


@given(st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u115f\u1160\u2800\u3164\uffa0"))
def test_letters_digits_and_signs_are_visible(character: str) -> None:
    assert not invisible(character)


# ---------------------------------------------------------------- the fields


def problems_of(body: Any) -> list[tuple[str, str]]:
    """Return pointer and type of everything that is wrong with a body."""
    try:
        ChatMessage.model_validate(body)
    except ValidationError as error:
        errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        return [(each.pointer, each.type) for each in field_problems(errors)]
    return []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "hi"}, []),
        ({"message": "hi", "conversation_id": None}, []),
        ({"message": "hi", "conversation_id": "a-Z_9"}, []),
        ({"message": "hi", "conversation_id": "a"}, []),
        ({"message": "hi", "conversation_id": "a" * 64}, []),
        ({}, [("#/message", "missing")]),
        ({"message": None}, [("#/message", "string_type")]),
        ({"message": 42}, [("#/message", "string_type")]),
        ({"message": True}, [("#/message", "string_type")]),
        ({"message": ["hi"]}, [("#/message", "string_type")]),
        ({"message": {"text": "hi"}}, [("#/message", "string_type")]),
        ({"message": b"hi"}, [("#/message", "string_type")]),
        ({"message": "hi", "conversation_id": "\ud800"}, [("#/conversation_id", "string_unicode")]),
        ({"message": "\ud800"}, [("#/message", "message_unreadable")]),
        ({"message": " "}, [("#/message", "message_blank")]),
        ({"message": "hi", "x/y~z": 1}, [("#", "extra_forbidden")]),
        ({"message": "hi", "conversation_id": ""}, [("#/conversation_id", "string_too_short")]),
        ({"message": "hi", "conversation_id": "a" * 65}, [("#/conversation_id", "string_too_long")]),
        ({"message": "hi", "conversation_id": "a/b"}, [("#/conversation_id", "string_pattern_mismatch")]),
        ({"message": "hi", "conversation_id": "a\n"}, [("#/conversation_id", "string_pattern_mismatch")]),
        ({"message": "", "conversation_id": 1}, [("#/message", "message_empty"), ("#/conversation_id", "string_type")]),
        (["message"], [("#", "model_type")]),
    ],
)
def test_each_wrong_body_is_told_where_and_what(body: Any, expected: list[tuple[str, str]]) -> None:
    assert problems_of(body) == expected


def test_pointers_are_escaped_and_what_the_client_made_up_is_left_out() -> None:
    told = field_problems(
        [
            {"type": "x", "loc": ("body", "a/b~c", 0), "msg": "words"},
            {"type": "extra_forbidden", "loc": ("body", "inner", "<script>"), "msg": "words"},
            {"type": "json_invalid", "loc": ("body", 17), "msg": "words"},
            {"type": "missing", "loc": ("body",), "msg": "Field required"},
        ]
    )
    assert [(each.pointer, each.detail) for each in told] == [
        ("#/a~1b~0c/0", "words"),
        ("#/inner", "There is a field that is unknown here."),
        ("#", "The body is not JSON."),
        ("#", "Field required"),
    ]


# ---------------------------------------------------------------- the size


class Wire:
    """An ASGI conversation: the given messages come in, what is sent is kept."""

    def __init__(self, *chunks: bytes, headers: dict[str, str] | None = None, then_gone: bool = False) -> None:
        self.scope = {
            "type": "http",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        }
        self.waiting: list[Any] = [
            {"type": "http.request", "body": chunk, "more_body": then_gone or number < len(chunks)}
            for number, chunk in enumerate(chunks, 1)
        ]
        self.waiting.append({"type": "http.disconnect"})
        self.sent: list[Any] = []
        self.seen: list[Any] = []

    async def receive(self) -> Any:
        return self.waiting.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen += [await receive(), await receive()]

    async def run(self, max_bytes: int = 10) -> "Wire":
        await BodyLimit(self.app, max_bytes)(self.scope, self.receive, self.send)
        return self


@pytest.mark.anyio
@pytest.mark.parametrize(
    "chunks", [(b"0123456789",), (b"01234", b"56789"), (b"", b"0123456789", b""), (b"0",) * 10], ids=str
)
async def test_a_body_up_to_the_limit_is_passed_on_whole(chunks: tuple[bytes, ...]) -> None:
    wire = await Wire(*chunks).run()
    body = {"type": "http.request", "body": b"".join(chunks), "more_body": False}
    assert wire.seen == [body, {"type": "http.disconnect"}]
    assert wire.sent == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("chunks", "headers", "read"),
    [
        ((b"0123456789a",), {}, 1),
        ((b"0123456789", b"a", b"b"), {}, 2),
        ((b"0" * 1000, b"0" * 1000), {"content-length": "1"}, 1),
        ((b"",), {"content-length": "11"}, 0),
        ((b"",), {"content-length": "9" * 5000}, 0),
    ],
)
async def test_a_body_beyond_it_is_answered_413_and_read_no_further(
    chunks: tuple[bytes, ...], headers: dict[str, str], read: int
) -> None:
    wire = Wire(*chunks, headers=headers)
    waiting = len(wire.waiting)
    await wire.run()
    assert wire.seen == []
    assert waiting - len(wire.waiting) == read
    start, body = wire.sent
    assert (start["type"], start["status"]) == ("http.response.start", 413)
    assert start["headers"] == [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
    told = json.loads(body["body"])
    assert (told["type"], told["status"], told["title"]) == ("urn:problem:body-too-large", 413, "Content Too Large")
    assert "10 bytes" in told["detail"]


@pytest.mark.anyio
async def test_exactly_the_announced_limit_passes_and_words_for_numbers_are_left_to_the_server() -> None:
    assert (await Wire(b"0123456789", headers={"content-length": "10"}).run()).seen
    assert (await Wire(b"x", headers={"content-length": "many"}).run()).seen
    assert (await Wire(b"").run(max_bytes=0)).seen


@pytest.mark.anyio
async def test_a_body_that_does_not_say_whether_more_comes_is_complete() -> None:
    wire = Wire(b"abc")
    del wire.waiting[0]["more_body"]
    await wire.run()
    assert wire.seen[0]["body"] == b"abc"


@pytest.mark.anyio
async def test_a_client_that_goes_before_its_body_is_complete_bothers_nobody() -> None:
    wire = await Wire(b"abc", then_gone=True).run()
    assert (wire.seen, wire.sent) == ([], [])


@pytest.mark.anyio
async def test_what_is_not_http_passes_untouched() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    wire = Wire()
    await BodyLimit(app)({"type": "lifespan"}, wire.receive, wire.send)
    assert seen == [({"type": "lifespan"}, wire.receive, wire.send)]


# ---------------------------------------------------------------- the app


@contextlib.asynccontextmanager
async def open_service() -> AsyncIterator[tuple[httpx.AsyncClient, OfflineModel]]:
    model = OfflineModel()
    transport: Any = httpx.AsyncClient(transport=httpx.ASGITransport(model))
    client = openai.AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=transport, max_retries=0)
    app = create_app(Settings(openai_api_key="k", api_keys=("key-a",)), client=client)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        http.headers.update(KEY)
        yield http, model
    await client.close()


async def post(http: httpx.AsyncClient, content: Any, **headers: str) -> httpx.Response:
    """Send a body as it is."""
    return await http.post("/v1/chat", content=content, headers={"Content-Type": "application/json", **headers})


def is_problem(answer: httpx.Response, status: int, kind: str = "urn:problem:invalid") -> dict[str, Any]:
    """Return the body, which has to be a problem detail."""
    told: dict[str, Any] = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (told["status"], told["type"]) == (status, kind)
    assert told["title"]
    assert told["detail"]
    return told


@pytest.mark.anyio
async def test_a_message_reaches_the_model_trimmed_and_a_conversation_goes_on() -> None:
    async with open_service() as (http, model):
        answer = await http.post("/v1/chat", json={"message": "  What is 6 * 7?\n"})
        assert "42" in answer.json()["response"]
        assert model.calls[-1].body["messages"][-1]["content"] == "What is 6 * 7?"
        id = answer.json()["conversation_id"]
        again = await http.post("/v1/chat", json={"message": "and?", "conversation_id": id})
        assert again.json()["conversation_id"] == id
        assert len(model.calls[-1].body["messages"]) == 4
        assert (await http.post("/v1/chat", json={"message": "x" * 1000})).status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("", "message_empty"),
        (" \u200b", "message_blank"),
        ("x" * 1001, "message_too_long"),
        ("a\0", "message_unreadable"),
    ],
)
async def test_each_refusal_has_a_type_of_its_own_and_costs_no_model_call(message: str, kind: str) -> None:
    async with open_service() as (http, model):
        told = is_problem(await http.post("/v1/chat", json={"message": message}), 422)
        assert [(each["pointer"], each["type"]) for each in told["errors"]] == [("#/message", kind)]
        assert told["detail"] == told["errors"][0]["detail"]
        assert not model.calls


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"message": "\xff"}', 400),
        (b"nonsense-nobody-says", 400),
        (b'{"message": "hi",}', 400),
        (b'{"message": "\\ud800 secret-nobody-says"}', 422),
        (b'{"message": "hi", "\\ud800": 1}', 422),
        (b'{"message": "hi", "secret-nobody-says": 1}', 422),
        (b'{"message": NaN}', 422),
        (b'{"message": ' + b"9" * 5000 + b"}", 400),
        (b"[" * 20_000 + b"]" * 20_000, 400),
        (b'{"a":' * 8_000 + b"1" + b"}" * 8_000, 400),
        (b'"secret-nobody-says"', 422),
        (b"null", 422),
        (b"[]", 422),
        (b'{"message": 1, "message": "secret-nobody-says", "conversation_id": "secret nobody says"}', 422),
    ],
)
async def test_strange_bodies_get_a_problem_and_never_a_500_or_an_echo(content: bytes, status: int) -> None:
    async with open_service() as (http, model):
        answer = await post(http, content)
        told = answer.json()
        assert answer.status_code == told["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "nobody" not in answer.text
        assert not model.calls


@pytest.mark.anyio
async def test_ten_megabytes_are_refused_announced_or_in_chunks() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b"x" * 65_536

    async with open_service() as (http, _):
        for content in (b"x" * 10_000_000, chunks()):
            is_problem(await post(http, content), 413, "urn:problem:body-too-large")
        assert (await post(http, b" " * (65_536 - 17) + b'{"message": "hi"}')).status_code == 200
        assert (await post(http, b" " * (65_537 - 17) + b'{"message": "hi"}')).status_code == 413


@pytest.mark.anyio
async def test_every_other_error_has_the_same_form() -> None:
    async with open_service() as (http, model):
        assert is_problem(await http.get("/nowhere"), 404, "about:blank")["title"] == "Not Found"
        assert (await http.get("/v1/chat")).headers["allow"] == "POST"
        is_problem(await http.get("/v1/chat"), 405, "about:blank")
        wrong = await post(http, b'{"message": ""}', **{"X-API-Key": "wrong"})
        assert is_problem(wrong, 401, "about:blank")["errors"] == []
        assert wrong.headers["www-authenticate"] == "ApiKey"
        model.next(Fault(status=500), Fault(status=429, retry_after_s=7))
        failed = await http.post("/v1/chat", json={"message": "hi"})
        assert is_problem(failed, 502, "urn:problem:model-unavailable")["title"] == "The model did not answer"
        assert "retry-after" not in failed.headers
        busy = await http.post("/v1/chat", json={"message": "hi"})
        assert busy.headers["retry-after"] == "7"
        assert busy.status_code == 503


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
bodies = st.one_of(
    st.fixed_dictionaries({"message": st.text(st.characters())}, optional={"conversation_id": st.text()}),
    st.fixed_dictionaries({}, optional={"message": json_values, "conversation_id": json_values, "other": json_values}),
    json_values,
).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)


@pytest.mark.anyio
async def test_no_body_whatever_makes_it_fail_or_answer_what_the_description_does_not_know() -> None:
    async with open_service() as (http, _):
        described = (await http.get("/openapi.json")).json()["paths"]["/v1/chat"]["post"]["responses"]
        tried: list[bytes] = []

        @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck), deadline=None)
        @given(bodies)
        def collect(body: bytes) -> None:
            tried.append(body)

        collect()
        for body in tried:
            answer = await post(http, body)
            assert str(answer.status_code) in described, body
            assert answer.status_code in (200, 400, 422), body
            assert answer.headers["content-type"] in described[str(answer.status_code)]["content"]


@pytest.mark.anyio
async def test_openapi_describes_the_errors_that_really_come() -> None:
    async with open_service() as (http, _):
        description = (await http.get("/openapi.json")).json()
        chat = description["paths"]["/v1/chat"]["post"]
        assert set(chat["responses"]) == {"200", "400", "401", "413", "422", "502", "503", "504"}
        for status, response in chat["responses"].items():
            assert list(response["content"]) == ["application/json" if status == "200" else "application/problem+json"]
        schema = chat["responses"]["422"]["content"]["application/problem+json"]["schema"]
        assert "$ref" not in json.dumps(schema)
        assert set(schema["properties"]) == set((await http.post("/v1/chat", json={})).json())
        assert set(schema["properties"]["errors"]["items"]["properties"]) == {"pointer", "type", "detail"}
        message = description["components"]["schemas"]["ChatMessage"]["properties"]["message"]
        assert (message["minLength"], message["maxLength"]) == (1, 1000)
        assert "HTTPValidationError" not in json.dumps(description)


def test_the_script_shows_every_refusal_in_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    for words in ("42", "is empty", "nobody can see", "1001 characters", "Field required", "65536 bytes"):
        assert words in out
