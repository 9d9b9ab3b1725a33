"""19.4.1: the line, the ID, the redaction, and that none of them can hold up or break a request."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import threading
import time
import types
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import exercise_1_19_4_solution as exercise
import httpx
import pytest
from exercise_1_19_4_solution import JsonFormatter, LineQueue, RequestIdMiddleware, json_logging, preview, redact
from fastapi import BackgroundTasks, FastAPI, HTTPException
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from starlette.responses import StreamingResponse

from shared.config import Settings
from shared.offline import Fault, OfflineModel

SETTINGS = Settings(openai_api_key="sk-test", api_keys=("key-of-alice",))
KEY = {"X-API-Key": "key-of-alice"}
ID = "x-request-id"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Served:
    """An app, a client to it, the model behind it and the lines it has logged."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient, model: OfflineModel, stream: io.StringIO) -> None:
        self.app, self.http, self.model, self.stream = app, http, model, stream

    async def chat(self, message: str = "hello", **headers: str) -> httpx.Response:
        return await self.http.post("/v1/chat", json={"message": message}, headers=KEY | headers)

    async def lines(self, of: httpx.Response | None = None) -> list[dict[str, Any]]:
        """Return what is written by now; every line must be a JSON object."""
        handler = next(h for h in logging.getLogger().handlers if isinstance(h, LineQueue))
        written = self.stream
        handler.lines.put(logging.makeLogRecord({"msg": "{}"}))  # a line that is no event, to know where we are
        while not written.getvalue().endswith("\n{}\n"):  # noqa: ASYNC110  (the writer is a thread and tells nobody)
            await asyncio.sleep(0.001)
        lines = [strict(line) for line in written.getvalue().splitlines() if line != "{}"]
        return lines if of is None else [line for line in lines if line.get("request_id") == of.headers[ID]]


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    model, stream = OfflineModel(), io.StringIO()
    http_client: Any = httpx.AsyncClient(transport=httpx.ASGITransport(model))
    async with AsyncOpenAI(
        api_key="sk-test", base_url="http://model/v1", http_client=http_client, max_retries=0
    ) as client:
        app = exercise.create_app(SETTINGS, client=client, stream=stream, **options)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as http,
        ):
            yield Served(app, http, model, stream)


@pytest.fixture
async def app() -> AsyncIterator[Served]:
    async with served() as service:
        yield service


def strict(line: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    fields = json.loads(line, parse_constant=refuse)
    assert isinstance(fields, dict) and line.isascii() and line.isprintable()
    return fields


def made(message: Any = "hello", *args: Any, error: BaseException | None = None, **extra: Any) -> dict[str, Any]:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.getLogger("test").makeRecord("test", 20, __file__, 7, message, args, info, None, extra)
    return strict(JsonFormatter().format(record))


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


# ---------------------------------------------------------------- the line


def test_a_line_has_time_level_logger_message_and_place() -> None:
    record = logging.LogRecord("test", logging.WARNING, "/some/where/file.py", 7, "%d of %d", (1, 2), None)
    record.created = 1_700_000_000.25
    assert strict(JsonFormatter().format(record)) == {
        "timestamp": "2023-11-14T22:13:20.250+00:00",
        "level": "WARNING",
        "logger": "test",
        "message": "1 of 2",
        "file": "file.py",
        "line": 7,
    }


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
        ),
    )
)
def test_any_extra_makes_one_line_that_a_strict_parser_reads(extra: dict[str, Any]) -> None:
    made(**{f"extra {name}": value for name, value in extra.items()})


def test_numbers_stay_numbers_and_what_json_has_no_form_for_becomes_text() -> None:
    loop: list[Any] = []
    loop.append(loop)
    line = made(
        whole=2**63 - 1, least=-(2**63), huge=2**63, enormous=10**5000, lower=-(2**63) - 1,
        part=0.5, nan=float("nan"), inf=float("inf"),
        yes=True, nothing=None, raw=b"\xff", unreadable=Unreadable(), loop=loop, pair=(1, 2), keys={1: "one"},
    )  # fmt: skip
    assert (line["whole"], line["least"], line["huge"]) == (2**63 - 1, -(2**63), "[number]")
    assert line["lower"] == "-[number]"
    assert (line["part"], line["nan"], line["inf"], line["yes"], line["nothing"]) == (0.5, "nan", "inf", True, None)
    assert (line["raw"], line["unreadable"], line["pair"]) == (r"b'\xff'", "(unreadable)", [1, 2])
    assert line["enormous"] == "(unreadable)"
    assert line["loop"] == [[[["[[...]]"]]]] and line["keys"] == {"1": "one"}


def test_tables_are_followed_four_levels_deep_and_their_names_are_texts() -> None:
    line = made(deep={"a": {"b": {"c": {"d": {"e": 1}}}}}, names={(1, 2): 3})
    assert line["deep"] == {"a": {"b": {"c": {"d": "{'e': 1}"}}}}
    assert line["names"] == {"(1, 2)": 3}


def test_of_a_deep_stack_the_outer_fifty_frames_are_shown_and_of_a_long_text_its_beginning() -> None:
    def deeper(levels: int) -> None:
        if not levels:
            raise ValueError("a" * 1001)
        deeper(levels - 1)

    try:
        deeper(60)
    except ValueError as error:
        line = made(error=error)
    stack = line["exception.stacktrace"]
    assert stack.count("  File ") == 50 and stack.endswith("ValueError: " + "a" * 1000)


def test_long_values_are_cut_and_our_own_fields_win() -> None:
    line = made(text="a" * 8001, many=list(range(51)), table=dict.fromkeys(range(51)), level="mine")
    assert (len(line["text"]), len(line["many"]), len(line["table"]), line["level"]) == (8000, 50, 50, "INFO")
    assert len(made("a" * 8001)["message"]) == 8000


@pytest.mark.parametrize("message", ["%d", "%s %s", Unreadable()])
def test_arguments_that_do_not_fit_cost_the_arguments_and_not_the_line(message: object) -> None:
    line = made(message, "x")
    assert line["message"] in (repr("%d"), repr("%s %s"), "(unreadable)")


def test_an_exception_becomes_fields_with_its_cause_first_and_no_secret() -> None:
    def inner() -> None:
        raise KeyError("sk-canary-0123456789")

    try:
        try:
            inner()
        except KeyError as cause:
            raise ValueError("outer\nline") from cause
    except ValueError as error:
        line = made(error=error)
    assert line["exception.type"] == "ValueError"
    assert line["exception.message"] == "outer\nline"
    first, second = line["exception.stacktrace"].split("\n\n")
    assert first.startswith("Traceback (most recent call last):\n") and first.endswith("\nKeyError: '[key]'")
    assert [part.rpartition(" in ")[2] for part in first.splitlines()[1:3]][-1] == "inner"
    assert second.endswith("ValueError: outer\nline")


def test_a_suppressed_context_is_left_out_and_an_endless_chain_ends() -> None:
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise ValueError("seen") from None
    except ValueError as error:
        assert "hidden" not in made(error=error)["exception.stacktrace"]
    chain: BaseException = ValueError("0")
    for number in range(1, 9):
        chain, chain.__cause__ = ValueError(str(number)), chain
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert made(error=one)["exception.stacktrace"].count("ValueError") == 5


# ---------------------------------------------------------------- secrets

SECRETS = (
    ("sk-proj-0123456789abcdef", "[key]"),
    ("sk-ant-api03-AbC_dEf-123456", "[key]"),
    ("sk_live_0123456789", "[key]"),
    ("AKIAIOSFODNN7EXAMPLE", "[key]"),
    ("AIzaSyA-0123456789abcdefghijklmnopqrstu", "[key]"),
    ("ghp_0123456789abcdefghijklmnopqrstuvwxyz", "[key]"),
    ("github_pat_0123456789abcdef", "[key]"),
    ("glpat-0123456789abcdef", "[key]"),
    ("hf_0123456789abcdef", "[key]"),
    ("xoxb-0123456789-abcdef", "[key]"),
    ("gsk_0123456789abcdef", "[key]"),
    ("xai-0123456789abcdef", "[key]"),
    ("pplx-0123456789abcdef", "[key]"),
    ("r8_0123456789abcdef", "[key]"),
    ("ya29.a0AfH6SMBx-abc", "[key]"),
    ("eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJ", "[key]"),
    ("Bearer abc.def-123", "Bearer [token]"),
    ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [secret]"),
    ("Authorization: Bearer abc.def-123", "Authorization: [secret]"),
    ("?api_key=canary&x=1", "?api_key=[secret]&x=1"),
    ('"password": "canary"', '"password": [secret]"'),
    ("https://user:pw@host/", "https://[user]@host/"),
    ("ada.lovelace+x@mail.example.org", "[email]"),
    ("4111 1111 1111 1111", "[number]"),
    ("4111-1111-1111-1", "[number]"),
)


@pytest.mark.parametrize(("secret", "shown"), SECRETS, ids=[secret[:12] for secret, _ in SECRETS])
def test_a_secret_is_removed_wherever_it_stands(secret: str, shown: str) -> None:
    assert redact(secret) == shown
    for before, after in (("", "."), ("\n", "\n"), ("say (", ") now"), ("<", "> and more")):
        assert secret not in redact(f"{before}{secret}{after}")


@pytest.mark.parametrize(
    "text",
    ["task-oriented risk-free", "the token count is 5", "call 123456789012", "at 2026-11-22 22:13", "a @ b", "sk-short",
     "0af7651916cd43dd84480912345678901234567x", "basic understanding", "1234567.890123456"],
)  # fmt: skip
def test_harmless_text_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("piece", ["a", "a.", "1", "1 ", "a@", "sk-", "eyJ", "bearer ", "key=", "://", "token: ", "-"])
def test_redaction_takes_linear_time_whatever_comes(piece: str) -> None:
    text = piece * (20_000 // len(piece))
    started = time.process_time()
    redact(text + "@")
    assert time.process_time() - started < 0.5


def test_a_preview_is_redacted_before_it_is_cut_and_is_one_line() -> None:
    assert preview("x" * 101) == "x" * 100
    assert preview("x" * 90 + " sk-canary-0123456789 tail") == "x" * 90 + " [key] tai"
    assert preview("one\r\n\ttwo\u2028three") == "one two three"
    assert preview("abcdef", 3) == "abc"


# ---------------------------------------------------------------- the ID


async def identified(*headers: tuple[bytes, bytes]) -> tuple[str, dict[str, str]]:
    seen: dict[str, str] = {}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.update(exercise._request.get())
        await send({"type": "http.response.start", "status": 200})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    middleware = RequestIdMiddleware(inner, new_id=lambda: "new")
    await middleware({"type": "http", "headers": headers}, None, send)  # type: ignore[arg-type]
    assert exercise.request_id() is None
    return dict(sent[0]["headers"])[b"x-request-id"].decode(), seen


@pytest.mark.anyio
@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
async def test_a_plain_id_from_outside_is_kept(given: str) -> None:
    assert await identified((b"x-request-id", given.encode())) == (given, {"request_id": given})


@pytest.mark.anyio
@pytest.mark.parametrize("given", [b"", b"x" * 65, b"a b", b'a"b', b"a\nb", b"a\n", b"<b>", b"\xff", b"a;b", b"a,b"])
async def test_a_forged_or_long_id_is_replaced(given: bytes) -> None:
    assert await identified((b"x-request-id", given)) == ("new", {"request_id": "new"})


@pytest.mark.anyio
@pytest.mark.parametrize("parent", [PARENT, f"cc-{TRACE}-b7ad6b7169203331-01-more", f"01-{TRACE}-b7ad6b7169203331-00"])
async def test_the_trace_id_serves_as_id_unless_there_is_one(parent: str) -> None:
    fields = {"request_id": TRACE, "trace_id": TRACE}
    assert await identified((b"traceparent", parent.encode())) == (TRACE, fields)
    both = ((b"traceparent", parent.encode()), (b"x-request-id", b"mine"))
    assert await identified(*both) == ("mine", fields | {"request_id": "mine"})


@pytest.mark.anyio
@pytest.mark.parametrize(
    "parent",
    [PARENT + "-more", PARENT + "x", "ff" + PARENT[2:], PARENT.upper(), PARENT[:-1],
     f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}-{'0' * 16}-01", "", "nonsense"],
)  # fmt: skip
async def test_a_broken_traceparent_is_ignored(parent: str) -> None:
    assert await identified((b"traceparent", parent.encode())) == ("new", {"request_id": "new"})


def test_new_ids_are_32_hex_digits_and_differ() -> None:
    middleware = RequestIdMiddleware(None)  # type: ignore[arg-type]
    ids = {middleware._identify([])["request_id"] for _ in range(1000)}
    assert len(ids) == 1000 and all(len(id) == 32 and int(id, 16) for id in ids)


# ---------------------------------------------------------------- over HTTP


@pytest.mark.anyio
async def test_every_line_of_a_chat_carries_its_id_and_the_real_tokens(app: Served) -> None:
    response = await app.chat("What is 6 * 7?\nPlease.")
    lines = await app.lines(response)
    asked, answered, over = lines
    assert [line["message"] for line in lines] == ["the model is asked", "the model answered", "the request is over"]
    assert asked["message_preview"] == "What is 6 * 7? Please."
    assert asked["gen_ai.request.model"] == answered["gen_ai.request.model"] == "gpt-4o-mini"
    assert answered["gen_ai.response.model"] == "gpt-4o-mini"
    assert answered["gen_ai.operation.name"] == "chat"
    assert answered["gen_ai.response.finish_reasons"] == ["stop"]
    assert (answered["gen_ai.usage.input_tokens"], answered["gen_ai.usage.output_tokens"]) == (17, 10)
    assert answered["gen_ai.conversation.id"] == response.json()["conversation_id"]
    assert 0 < answered["duration_ms"] <= over["duration_ms"]
    assert (over["http.request.method"], over["url.path"], over["http.response.status_code"]) == (
        "POST",
        "/v1/chat",
        200,
    )


@pytest.mark.anyio
async def test_tokens_the_api_did_not_count_are_null(app: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = app.model._completion
    monkeypatch.setattr(app.model, "_completion", lambda body: whole(body) | {"usage": None})
    answered = (await app.lines(await app.chat()))[1]
    assert answered["gen_ai.usage.input_tokens"] is answered["gen_ai.usage.output_tokens"] is None


@pytest.mark.anyio
async def test_a_hundred_concurrent_requests_keep_their_lines_apart(app: Served) -> None:
    app.model.delay_s = 0.01
    responses = await asyncio.gather(*(app.chat(f"request {number}") for number in range(100)))
    for number, response in enumerate(responses):
        asked, _, _ = await app.lines(response)
        assert asked["message_preview"] == f"request {number}"


@pytest.mark.anyio
async def test_errors_carry_the_id_in_header_and_body(app: Served) -> None:
    @app.app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("token=canary")

    app.model.next(Fault(status=500), Fault(status=429, retry_after_s=7))
    unavailable, busy = await app.chat(), await app.chat()
    for response, status in (
        (await app.http.get("/nowhere"), 404),
        (await app.http.delete("/v1/chat"), 405),
        (await app.chat(""), 422),
        (await app.http.post("/v1/chat", content=b"{", headers=KEY), 422),
        (await app.http.post("/v1/chat", json={"message": "x"}), 401),
        (await app.http.get("/broken"), 500),
        (unavailable, 502),
        (busy, 503),
    ):
        assert response.status_code == status
        assert response.json()["request_id"] == response.headers[ID]
        assert response.json()["detail"]
        over = (await app.lines(response))[-1]
        assert over["http.response.status_code"] == status
    assert busy.headers["retry-after"] == "7"
    assert (await app.http.delete("/v1/chat")).headers["allow"] == "POST"
    assert (await app.http.head("/nowhere")).headers[ID]
    (crash,) = [line for line in await app.lines() if line.get("exception.type") == "RuntimeError"]
    assert (crash["level"], crash["exception.message"]) == ("ERROR", "token=[secret]")


@pytest.mark.anyio
async def test_a_response_without_a_body_stays_without(app: Served) -> None:
    @app.app.get("/unchanged")
    async def unchanged() -> None:
        raise HTTPException(304)

    response = await app.http.get("/unchanged")
    assert (response.status_code, response.content) == (304, b"") and response.headers[ID]


@pytest.mark.anyio
async def test_threads_tasks_and_background_tasks_log_under_the_id(app: Served) -> None:
    log = logging.getLogger("work")

    @app.app.get("/work")
    async def work(tasks: BackgroundTasks) -> None:
        await asyncio.to_thread(log.info, "thread")
        await asyncio.create_task(asyncio.to_thread(log.info, "task"))
        tasks.add_task(log.info, "background")

    response = await app.http.get("/work")
    lines = await app.lines(response)
    assert [line["message"] for line in lines] == ["thread", "task", "background", "the request is over"]


@pytest.mark.anyio
async def test_the_duration_ends_with_the_last_byte_and_not_with_background_tasks() -> None:
    now = 100.0

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        nonlocal now
        await send({"type": "http.response.start", "status": 200})
        now += 1
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        now += 1
        await send({"type": "http.response.body", "body": b"y"})
        now += 60

    async def send(message: Any) -> None:
        pass

    async def part_of_a_millisecond(scope: Any, receive: Any, send: Any) -> None:
        nonlocal now
        now = 100.0123456
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    middleware: Any = exercise.RequestLogMiddleware(inner, clock=lambda: now)
    stream = io.StringIO()
    with json_logging(stream):
        await middleware({"type": "http", "method": "GET", "path": "/" + "p" * 300}, None, send)
    line = strict(stream.getvalue().strip())
    assert line["duration_ms"] == 2000 and len(line["url.path"]) == 200
    now, stream = 100.0, io.StringIO()
    middleware = exercise.RequestLogMiddleware(part_of_a_millisecond, clock=lambda: now)
    with json_logging(stream):
        await middleware({"type": "http", "method": "GET", "path": "/"}, None, send)
    assert strict(stream.getvalue().strip())["duration_ms"] == 12.346


@pytest.mark.anyio
@pytest.mark.parametrize("middleware", [RequestIdMiddleware, exercise.RequestLogMiddleware])
async def test_what_is_not_http_passes_untouched(middleware: Any) -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    receive, send = object(), object()
    await middleware(inner)({"type": "lifespan"}, receive, send)
    assert seen == [({"type": "lifespan"}, receive, send)]


@pytest.mark.anyio
async def test_the_time_of_the_model_is_in_milliseconds_with_three_digits(
    app: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter((7.0, 7.0123456))
    monkeypatch.setattr(exercise, "time", types.SimpleNamespace(perf_counter=lambda: next(moments)))
    lines = await app.lines(await app.chat())
    (answered,) = (line for line in lines if line["message"] == "the model answered")
    assert answered["duration_ms"] == 12.346


@pytest.mark.anyio
async def test_a_stream_that_breaks_off_is_logged_and_broken_off(app: Served) -> None:
    @app.app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("torn")

        return StreamingResponse(parts())

    with pytest.raises(RuntimeError, match="torn"):
        await app.http.get("/stream")
    lines = await app.lines()
    assert [line["message"] for line in lines[-2:]] == ["the request failed", "the request is over"]
    assert exercise.request_id() is not None, "the server logs the exception next, in this context"


@pytest.mark.anyio
async def test_a_client_that_leaves_is_logged_without_a_status(app: Served) -> None:
    app.model.next(Fault(hang=True))
    request = asyncio.create_task(app.chat())
    while not app.model.calls:  # noqa: ASYNC110  (the stand-in tells nobody)
        await asyncio.sleep(0.001)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    over = [line for line in await app.lines() if line["message"] == "the request is over"]
    assert [line["http.response.status_code"] for line in over] == [None]


@pytest.mark.anyio
async def test_a_canary_in_message_header_query_or_path_never_reaches_the_log(app: Served) -> None:
    canary = "sk-canary-0123456789abcdef"
    await app.chat(f"my key is {canary}", cookie=canary, authorization=f"Bearer {canary}")
    await app.http.get(f"/v1/{canary}?api_key={canary}", headers={"X-Request-ID": f"a {canary}"})
    assert await app.lines() and "canary" not in app.stream.getvalue() and "key-of-alice" not in app.stream.getvalue()


@pytest.mark.anyio
async def test_messages_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(log_messages=False) as app:
        assert "message_preview" not in (await app.lines(await app.chat("private")))[0]
    monkeypatch.setenv("LOG_MESSAGES", "0")
    async with served() as app:
        await app.chat("private")
        await app.lines()
        assert "private" not in app.stream.getvalue()


@pytest.mark.anyio
async def test_the_same_app_starts_twice() -> None:
    stream = io.StringIO()
    app = exercise.create_app(SETTINGS, client=object(), stream=stream)  # type: ignore[arg-type]
    for _ in range(2):
        with contextlib.suppress(Exception):
            async with app.router.lifespan_context(app):
                logging.getLogger("any").info("up")
    assert [strict(line)["message"] for line in stream.getvalue().splitlines()].count("up") == 2


# ---------------------------------------------------------------- the writer


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with io.StringIO() as stream:
        yield stream


def test_libraries_warnings_threads_and_uvicorn_come_out_as_json_and_all_is_undone(stream: io.StringIO) -> None:
    server, access = logging.getLogger("uvicorn.error"), logging.getLogger("uvicorn.access")
    root_level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    hooks = threading.excepthook, warnings.showwarning
    before = (logging.getLogger().handlers[:], logging.getLogger().level, server.propagate, *hooks)
    own = logging.StreamHandler(io.StringIO())
    access.addHandler(own)
    level = server.level
    server.setLevel(logging.NOTSET)  # however quiet another test has made uvicorn
    try:
        with warnings.catch_warnings(), json_logging(stream):
            warnings.simplefilter("ignore")  # what other tests have left behind
            server.error("Uvicorn fails", extra={"color_message": "red"})
            access.error("GET /?secret=1")
            assert not access.hasHandlers()
            for name in ("httpx", "httpx2"):
                logging.getLogger(name).info("GET http://user:password@host")
            warnings.filterwarnings("always", "old")
            warnings.warn("old", stacklevel=1)
            thread = threading.Thread(target=lambda: 1 / 0)
            thread.start()
            thread.join()
        assert own in access.handlers
        hooks = threading.excepthook, warnings.showwarning
        after = (logging.getLogger().handlers[:], logging.getLogger().level, server.propagate, *hooks)
    finally:
        logging.getLogger().setLevel(root_level)
        server.setLevel(level)
        access.removeHandler(own)
    lines = [strict(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["uvicorn.error", "py.warnings", exercise.__name__]
    assert "color_message" not in lines[0] and lines[2]["exception.type"] == "ZeroDivisionError"
    assert after == before


def test_debug_lines_are_left_out_unless_asked_for(stream: io.StringIO) -> None:
    with json_logging(stream):
        logging.getLogger("any").debug("one")
    with json_logging(stream, level=logging.DEBUG):
        logging.getLogger("any").debug("two")
    assert [strict(line)["message"] for line in stream.getvalue().splitlines()] == ["two"]


def test_a_writer_that_is_stuck_holds_nobody_up() -> None:
    free = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            free.wait(10)
            return super().write(text)

    stream = Stuck()
    with json_logging(stream):
        started = time.monotonic()
        for number in range(100):
            logging.getLogger("any").info("line %d", number)
        assert time.monotonic() - started < 5
        free.set()
    assert [strict(line)["message"] for line in stream.getvalue().splitlines()] == [f"line {n}" for n in range(100)]


def test_what_does_not_fit_into_the_queue_is_counted() -> None:
    handler = LineQueue(capacity=2)
    log = logging.Logger("full")
    log.addHandler(handler)
    for number in range(5):
        log.info("%d", number)
    assert [handler.lines.get().message for _ in range(2)] and handler.lines.empty()
    log.info("after")
    notice, after = (strict(handler.lines.get().message) for _ in range(2))
    assert (notice["level"], notice["line"]) == ("ERROR", 0) and notice["message"].startswith("3 lines were dropped")
    assert after["message"] == "after"
    log.info("later")
    assert strict(handler.lines.get().message)["message"] == "later" and handler.lines.empty()


def test_ten_thousand_lines_wait_and_no_more() -> None:
    handler = LineQueue()
    for number in range(10_001):
        handler.enqueue(logging.makeLogRecord({"msg": str(number)}))
    assert handler.lines.qsize() == 10_000


# ---------------------------------------------------------------- the script


def test_the_script_plays_a_transcript(capsys: pytest.CaptureFixture[str]) -> None:
    assert exercise.main([]) == 0
    out, err = capsys.readouterr()
    assert (out + err).isascii() and "mine-1" in out
    lines = [strict(line) for line in err.splitlines()]
    assert any(line.get("message_preview", "").startswith("My key is [key], my mail is [email].") for line in lines)
