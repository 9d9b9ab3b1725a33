"""`shared/`: settings, the agent, the plain API and the stand-in model, on a real SDK client."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Request

from shared import config
from shared.agent import Agent, ModelError, Reply, Usage, ask, build_agent, open_agent, stream
from shared.api import Caller, ChatRequest, base_app, caller_id, unless_gone
from shared.config import DEFAULT_API_KEY, PLACEHOLDER_KEY, Settings, SettingsError
from shared.offline import Fault, OfflineModel, answer
from tests.chapter import FOLDER, ROOT
from tests.kit.serving import KEYS, SETTINGS, client_of, serving

pytestmark = pytest.mark.anyio
OFFLINE = {"OFFLINE": "1"}
LIVE = {"OPENAI_API_KEY": "sk-real"}


# ---------------------------------------------------------------- settings


def test_the_defaults_need_only_a_key() -> None:
    settings = Settings.load(LIVE)
    assert settings == Settings(openai_api_key="sk-real")
    assert (settings.model, settings.host, settings.port) == ("gpt-4o-mini", "127.0.0.1", 8000)
    assert settings.api_keys == (DEFAULT_API_KEY,)


def test_everything_can_be_set() -> None:
    settings = Settings.load(
        {
            "OPENAI_API_KEY": "sk-real",
            "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1",
            "OPENAI_MODEL": "llama3",
            "API_KEY": " a , b,",
            "ENVIRONMENT": "production",
            "HOST": "0.0.0.0",
            "PORT": "65535",
        }
    )
    assert settings.openai_base_url == "http://127.0.0.1:11434/v1"
    assert (settings.model, settings.api_keys, settings.environment) == ("llama3", ("a", "b"), "production")
    assert (settings.host, settings.port, settings.offline) == ("0.0.0.0", 65535, False)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, r"OPENAI_API_KEY is not set: .*\.env.*OFFLINE=1"),
        ({"OPENAI_API_KEY": "  "}, "OPENAI_API_KEY is not set"),
        ({"OPENAI_API_KEY": PLACEHOLDER_KEY}, "OPENAI_API_KEY is still the placeholder"),
        (LIVE | {"PORT": "0"}, "PORT must be a whole number from 1 to 65535"),
        (LIVE | {"PORT": "65536"}, "PORT must be"),
        (LIVE | {"PORT": "\u0663"}, "PORT must be"),
        (LIVE | {"OFFLINE": "maybe"}, "OFFLINE must be 1 or 0"),
        (LIVE | {"ENVIRONMENT": "prod"}, "ENVIRONMENT must be development or production"),
        (LIVE | {"ENVIRONMENT": "production"}, "API_KEY is the default in production"),
        (OFFLINE | {"ENVIRONMENT": "production", "API_KEY": "x"}, "OFFLINE=1 is refused in production"),
        (LIVE | {"API_KEY": ","}, "API_KEY holds no key"),
        (LIVE | {"API_KEY": "caf\u00e9"}, "API_KEY must be printable ASCII"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.load(env)


def test_all_problems_come_at_once_and_no_value_is_shown() -> None:
    with pytest.raises(SettingsError) as error:
        Settings.load({"OPENAI_API_KEY": PLACEHOLDER_KEY, "PORT": "secret-port", "OFFLINE": "secret-word"})
    assert len(error.value.problems) == 3
    assert "secret" not in str(error.value)
    assert PLACEHOLDER_KEY not in str(error.value)


@pytest.mark.parametrize("env", [{}, {"OPENAI_API_KEY": PLACEHOLDER_KEY}])
def test_a_demo_falls_back_to_the_stand_in_and_a_server_does_not(env: dict[str, str]) -> None:
    assert Settings.load(env, demo=True).offline
    assert not Settings.load(LIVE, demo=True).offline
    with pytest.raises(SettingsError):
        Settings.load(env)


def test_secrets_stay_out_of_the_repr() -> None:
    settings = Settings("sk-real", openai_base_url="http://user:password@host", api_keys=("caller-key",))
    assert not [secret for secret in ("sk-real", "password", "caller-key") if secret in repr(settings)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_the_environment_wins_over_the_first_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real dotenv_values
    (tmp_path / ".env").write_text("\ufeffOPENAI_API_KEY=sk-file\nPORT=9000\nEMPTY\n", encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setattr(config, "CHAPTER", tmp_path / "none")
    monkeypatch.setenv("PORT", "9001")
    monkeypatch.chdir(tmp_path.parent)
    settings = Settings.load()
    assert (settings.openai_api_key, settings.port) == ("sk-file", 9001)


# ---------------------------------------------------------------- the agent


async def test_a_reply_carries_what_the_api_said() -> None:
    async with open_agent(SETTINGS, client_of(OfflineModel())) as agent:
        reply = await ask(agent, "What is 6 * 7?", "c")
    assert reply == Reply("[stand-in] 6 * 7 = 42", "gpt-4o-mini", Usage(15, 10), "stop")


async def test_a_conversation_is_remembered_and_kept_apart() -> None:
    async with open_agent(SETTINGS, client_of(OfflineModel())) as agent:
        await ask(agent, "My name is Ada.", "a")
        assert "Ada" in (await ask(agent, "What is my name?", "a")).text
        assert "Ada" not in (await ask(agent, "What is my name?", "b")).text


async def test_edge_five_turns_at_once_are_ten_messages_in_order() -> None:
    model = OfflineModel(delay_s=0.005)
    async with open_agent(SETTINGS, client_of(model)) as agent:
        await asyncio.gather(*(ask(agent, f"message {n}", "c") for n in range(5)))
        state = await (await agent.graph()).aget_state({"configurable": {"thread_id": "c"}})
    kinds = [message.type for message in state.values["messages"]]
    assert kinds == ["human", "ai"] * 5
    for question, reply in zip(state.values["messages"][::2], state.values["messages"][1::2], strict=True):
        assert reply.content.endswith(question.content)


async def test_conversations_nobody_waits_for_are_forgotten_by_the_turns() -> None:
    async with open_agent(SETTINGS, client_of(OfflineModel())) as agent:
        await asyncio.gather(*(ask(agent, "hi", f"c-{n % 3}") for n in range(9)))
        assert agent.turn._waiting == {}


async def test_another_model_can_be_asked() -> None:
    model = OfflineModel()
    async with open_agent(SETTINGS, client_of(model)) as agent:
        assert (await ask(agent, "hi", "c", model="gpt-4o")).model == "gpt-4o"
        assert (await ask(agent, "hi", "c")).model == "gpt-4o-mini"
        with pytest.raises(ModelError, match="model_not_found"):
            await ask(agent, "hi", "c", model="gpt-99")


async def test_the_pieces_of_a_stream_make_the_reply() -> None:
    async with open_agent(SETTINGS, client_of(OfflineModel())) as agent:
        *pieces, reply = [piece async for piece in stream(agent, "What is 6 * 7?", "c")]
        assert len(pieces) > 3
        assert isinstance(reply, Reply)
        assert "".join(map(str, pieces)) == reply.text == "[stand-in] 6 * 7 = 42"
        assert reply.usage == Usage(15, 10)
        assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=429, retry_after_s=7), "model_busy"),
        (Fault(status=500), "model_unavailable"),
        (Fault(status=503), "model_unavailable"),
        (Fault(status=401), "model_key_refused"),
        (Fault(status=400), "model_request_refused"),
        (Fault(garbage=True), "model_bad_answer"),
    ],
)
async def test_failure_a_turn_that_fails_never_happened(fault: Fault, code: str) -> None:
    model = OfflineModel()
    async with open_agent(SETTINGS, client_of(model)) as agent:
        await ask(agent, "first", "c")
        model.next(fault)
        with pytest.raises(ModelError) as error:
            await ask(agent, "lost", "c")
        assert error.value.code == code
        assert error.value.retry_after_s == fault.retry_after_s
        state = await (await agent.graph()).aget_state({"configurable": {"thread_id": "c"}})
    assert [message.content for message in state.values["messages"]][::2] == ["first"]


async def test_failure_a_stream_that_is_cut_is_an_error_and_no_turn() -> None:
    model = OfflineModel()
    async with open_agent(SETTINGS, client_of(model)) as agent:
        model.next(Fault(cut=True))
        with pytest.raises(ModelError):
            async for _ in stream(agent, "hello there", "c"):
                pass
        state = await (await agent.graph()).aget_state({"configurable": {"thread_id": "c"}})
    assert state.values["messages"] == []


async def test_failure_a_model_that_hangs_times_out() -> None:
    model = OfflineModel()
    model.next(Fault(hang=True))
    client = AsyncTimeoutClient(model)
    async with open_agent(SETTINGS, client) as agent:
        with pytest.raises(ModelError, match="model_timeout"):
            await ask(agent, "hi", "c")


def AsyncTimeoutClient(model: OfflineModel) -> openai.AsyncOpenAI:
    """httpx's ASGI transport knows no timeouts, so the transport is told to raise what a network would."""

    class Impatient(httpx.ASGITransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ReadTimeout("too slow", request=request)

    http: Any = httpx.AsyncClient(transport=Impatient(model))
    return openai.AsyncOpenAI(api_key="sk-test", base_url="http://model/v1", http_client=http, max_retries=0)


async def test_a_load_that_fails_is_told_to_whoever_asks_and_not_to_the_exit() -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("cannot build")

    async with open_agent(SETTINGS, client_of(OfflineModel()), build=broken) as agent:
        with pytest.raises(RuntimeError, match="cannot build"):
            await ask(agent, "hi", "c")


async def test_a_caller_who_leaves_does_not_stop_the_loading() -> None:
    ready = asyncio.Event()

    def slow_load() -> Any:
        asyncio.run_coroutine_threadsafe(ready.wait(), loop).result(5)
        return build_agent(client_of(OfflineModel()))

    loop = asyncio.get_running_loop()
    agent = Agent(slow_load)
    leaving = asyncio.create_task(ask(agent, "hi", "c"))
    await asyncio.sleep(0)
    leaving.cancel()
    ready.set()
    assert (await ask(agent, "still here", "c")).text.endswith("still here")


# ---------------------------------------------------------------- the plain API


def plain_app(model: OfflineModel) -> FastAPI:
    app = base_app(SETTINGS, client_of(model))

    @app.post("/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> str:
        return (await unless_gone(request, ask(request.app.state.agent, body.message, caller))).text

    return app


async def test_a_client_that_goes_away_cancels_its_model_call() -> None:
    model = OfflineModel()
    model.next(Fault(hang=True))
    app = plain_app(model)
    left = asyncio.Event()
    sent: list[int] = []

    async def receive() -> dict[str, Any]:
        if not body_sent:
            body_sent.append(True)
            return {"type": "http.request", "body": b'{"message": "hi"}', "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    body_sent: list[bool] = []
    headers = [(b"x-api-key", KEYS[0].encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/chat", "query_string": b"", "headers": headers}
    async with app.router.lifespan_context(app):
        request = asyncio.create_task(app(scope, receive, send))
        while not model.calls:  # noqa: ASYNC110  (the stand-in has no event for it)
            await asyncio.sleep(0.001)
        left.set()
        await asyncio.wait_for(request, 5)
        assert app.state.agent.turn._waiting == {}, "the turn is given back"
    assert sent == [499]


async def test_the_same_401_for_a_missing_and_a_wrong_key() -> None:
    async with serving(plain_app(OfflineModel()), key=None) as http:
        answers = [await http.post("/chat", json={"message": "hi"}, headers=h) for h in ({}, {"X-API-Key": "x"})]
    assert {answer.status_code for answer in answers} == {401}
    assert answers[0].content == answers[1].content
    assert answers[0].headers["www-authenticate"] == "ApiKey"


def test_a_caller_is_known_by_a_name_that_is_not_the_key() -> None:
    assert caller_id("alice-key") == caller_id("alice-key") != caller_id("bob-key")
    assert "alice" not in caller_id("alice-key")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": ""},
        {"message": None},
        {"message": "x" * 10_001},
        {"message": "hi", "conversation_id": ""},
        {"message": "hi", "conversation_id": "../etc"},
        {"message": "hi", "conversation_id": "x" * 65},
    ],
)
async def test_abuse_what_is_not_a_chat_is_a_422(body: dict[str, Any]) -> None:
    model = OfflineModel()
    async with serving(plain_app(model)) as http:
        assert (await http.post("/chat", json=body)).status_code == 422
    assert not model.calls


async def test_the_same_app_can_be_started_twice() -> None:
    app = plain_app(OfflineModel())
    for _ in range(2):
        async with serving(app) as http:
            assert (await http.post("/chat", json={"message": "hi"})).status_code == 200


async def test_the_models_own_words_never_reach_the_client() -> None:
    model = OfflineModel()
    model.next(Fault(status=500))
    async with serving(plain_app(model)) as http:
        failed = await http.post("/chat", json={"message": "hi"})
    assert failed.json() == {"detail": "the model did not answer (model_unavailable)", "code": "model_unavailable"}


# ---------------------------------------------------------------- the stand-in


async def test_the_stand_in_is_as_strict_as_the_real_api() -> None:
    model = OfflineModel()
    client = client_of(model)
    hello: Any = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        await client.chat.completions.create(model="gpt-99", messages=hello)
    assert missing.value.code == "model_not_found"
    for messages in ([], [{"role": "robot", "content": "hi"}], [{"role": "user"}], [{"role": "user", "content": 3}]):
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="gpt-4o", messages=messages)  # type: ignore[arg-type]
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="a b").chat.completions.create(model="gpt-4o", messages=hello)
    assert [found.id async for found in client.models.list() if found.id == "gpt-4o"] == ["gpt-4o"]
    assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"


async def test_embeddings_have_the_length_that_was_asked_for_and_length_one() -> None:
    client = client_of(OfflineModel())
    short = await client.embeddings.create(model="text-embedding-3-small", input=["a b", "a b", "c"], dimensions=8)
    vectors = [entry.embedding for entry in short.data]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == vectors[1] != vectors[2]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1, abs=1e-6)
    full = await client.embeddings.create(model="text-embedding-3-small", input="a", encoding_format="float")
    assert len(full.data[0].embedding) == 1536
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model="text-embedding-3-small", input=[""])


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("What is 6 * 7?", "6 * 7 = 42"),
        ("3 / 0", "3 / 0 = undefined"),
        ("facts about tea", "1. tea has a history."),
        ("What's my name?", "You have not told me your name."),
        ("hello", "You said: hello"),
    ],
)
def test_its_answers_are_useful_and_plainly_not_a_models(question: str, said: str) -> None:
    text = answer([{"role": "system", "content": "x"}, {"role": "user", "content": question}])
    assert text.startswith("[stand-in] ")
    assert said in text


async def test_faults_come_in_order_and_only_once() -> None:
    model = OfflineModel()
    model.next(Fault(status=500), Fault(status=503))
    client = client_of(model)
    hello: Any = [{"role": "user", "content": "hi"}]
    for status in (500, 503):
        with pytest.raises(openai.InternalServerError) as error:
            await client.chat.completions.create(model="gpt-4o", messages=hello)
        assert error.value.status_code == status
    assert (await client.chat.completions.create(model="gpt-4o", messages=hello)).usage
    assert len(model.calls) == 3


# ---------------------------------------------------------------- the ways to start a script

SCRIPT = FOLDER / "exercise_3_19_2_solution.py"


@pytest.mark.parametrize("script", sorted(FOLDER.glob("exercise_*.py")), ids=lambda path: path.name)
def test_a_script_runs_from_any_directory(script: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "usage:" in run.stdout


@pytest.mark.parametrize("cwd", ["elsewhere", "chapter"])
def test_a_script_plays_its_transcript(cwd: str, tmp_path: Path) -> None:
    folder, name = (tmp_path, str(SCRIPT)) if cwd == "elsewhere" else (FOLDER, SCRIPT.name)
    run = subprocess.run([sys.executable, "-W", "error", name], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "came  429" in run.stdout


def test_settings_that_are_wrong_end_a_script_with_2_and_words(environment: Any) -> None:
    environment(PORT="nonsense")
    run = subprocess.run([sys.executable, str(SCRIPT)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "PORT must be a whole number" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_server_without_a_key_refuses_to_start_and_names_both_remedies() -> None:
    command = [sys.executable, "-m", "uvicorn", f"{SCRIPT.stem}:create_app", "--factory", "--port", "0"]
    run = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode != 0
    assert "OPENAI_API_KEY is not set" in run.stderr
    assert "OFFLINE=1" in run.stderr


def test_the_books_own_way_to_serve_works_in_the_chapters_folder(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", f"{SCRIPT.stem}:create_app", "--factory", "--port", str(port)]
    with subprocess.Popen(command, cwd=FOLDER, env=os.environ | {"OFFLINE": "1"}, stderr=subprocess.PIPE) as server:
        try:
            transport = httpx.HTTPTransport(retries=8)  # connection attempts, with growing pauses: 30 s in all
            with httpx.Client(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                assert http.get("/health").json() == {"status": "healthy"}
                key = {"X-API-Key": DEFAULT_API_KEY}
                assert http.post("/v1/chat", json={"message": "2 + 2"}, headers=key).json()["response"].endswith("= 4")
        finally:
            server.terminate()


async def test_the_responses_api_answers_as_the_chat_api_does() -> None:
    model = OfflineModel()
    client = client_of(model)
    response = await client.responses.create(model="gpt-4o", instructions="Be brief.", input="What is 6 * 7?")
    assert response.output_text == "[stand-in] 6 * 7 = 42"
    assert response.usage and response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert [m["role"] for m in model.calls[-1].messages] == ["system", "user"]

    named = await client.responses.create(
        model="gpt-4o", input=[{"role": "user", "content": [{"type": "input_text", "text": "My name is Ada."}]}]
    )
    later = await client.responses.create(model="gpt-4o", input="What is my name?", previous_response_id=named.id)
    assert later.output_text == "[stand-in] Your name is Ada."
    by_hand: list[Any] = [*({"role": "user", "content": t} for t in ("I am Bo", "What is my name?"))]
    by_hand.insert(1, named.output[0].model_dump())
    assert (await client.responses.create(model="gpt-4o", input=by_hand)).output_text == "[stand-in] Your name is Bo."


async def test_the_responses_api_streams_and_refuses() -> None:
    client = client_of(OfflineModel())
    async with client.responses.stream(model="gpt-4o", input="What is 6 * 7?") as stream:
        words = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(words) == final.output_text == "[stand-in] 6 * 7 = 42"
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="gpt-9", input="hello")
    with pytest.raises(openai.BadRequestError, match="input"):
        await client.responses.create(model="gpt-4o", input=[])
    with pytest.raises(openai.BadRequestError, match="not found"):
        await client.responses.create(model="gpt-4o", input="x", previous_response_id="resp_of_nobody")
    role: Any = [{"role": "narrator", "content": "x"}]
    with pytest.raises(openai.BadRequestError, match="role"):
        await client.responses.create(model="gpt-4o", input=role)
