"""The chapter's agent: one LangGraph node that asks the model, and a memory of every conversation.

    async with open_agent(settings) as agent:
        reply = await ask(agent, "What is 6 * 7?", conversation_id="c-1")

openai and LangGraph take a second to import, so nothing here imports them at the top: `open_agent` loads them
in a thread while the server already answers `/health`, and whoever asks first waits for the rest of that second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.config import Settings

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage
    from langchain_core.messages.ai import UsageMetadata
    from langchain_core.runnables import RunnableConfig
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from langgraph.graph.state import CompiledStateGraph
    from openai import AsyncOpenAI
    from openai.types import CompletionUsage

    Graph = CompiledStateGraph[Any, Any, Any, Any]

SYSTEM_PROMPT = "You are a helpful assistant. Answer briefly."
MODEL_TIMEOUT_S = 30.0  # the SDK's own default is 600 s
HEAD_START_S = 0.05
MODEL_RETRIES = 1  # the SDK's own default is 2, which makes three attempts


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as the API counted them; cached and reasoning tokens are parts of input and output."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True)
class Reply:
    """One answer: its text, the model that gave it, and what it used (None where the API did not say)."""

    text: str
    model: str
    usage: Usage | None
    finish_reason: str | None = None


class ModelError(Exception):
    """The model did not answer. `code` is stable; `retry_after_s` is set where waiting helps."""

    def __init__(self, code: str, *, retry_after_s: int | None = None) -> None:
        self.code, self.retry_after_s = code, retry_after_s
        super().__init__(f"the model did not answer ({code})")


class Turns:
    """Lets one turn at a time into a conversation; forgets a conversation that nobody is waiting for.

    Two parallel runs on one LangGraph thread both start from the same history, and one of them is lost.
    Per process: between processes the store has to arbitrate.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def __call__(self, conversation_id: str) -> AsyncIterator[None]:
        lock, waiting = self._waiting.get(conversation_id, (asyncio.Lock(), 0))
        self._waiting[conversation_id] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._waiting.pop(conversation_id)
            if waiting > 1:
                self._waiting[conversation_id] = lock, waiting - 1


class Agent:
    """A compiled graph that may still be loading, and the turns of its conversations."""

    def __init__(self, load: Callable[[], Graph]) -> None:
        self.turn = Turns()
        self._asked = asyncio.Event()
        self._loading = asyncio.create_task(self._load(load))

    async def _load(self, load: Callable[[], Graph]) -> Graph:
        """Let the first `/health` go before: a thread that imports holds the interpreter for milliseconds at a time."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._asked.wait(), HEAD_START_S)
        return await asyncio.to_thread(load)

    async def graph(self) -> Graph:
        """Return the compiled LangGraph, waiting while it loads; a caller who leaves does not stop the loading."""
        self._asked.set()
        return await asyncio.shield(self._loading)


@contextlib.asynccontextmanager
async def open_agent(
    settings: Settings, client: AsyncOpenAI | None = None, *, build: Callable[..., Graph] | None = None
) -> AsyncIterator[Agent]:
    """Open the agent for the life of a service; `client` stays the caller's to close, otherwise one is made and closed.

    `build(client, model=...)` compiles another graph than `build_agent`.
    """
    ours: list[AsyncOpenAI] = []

    def load() -> Graph:
        if client is None:
            ours.append(new_client(settings))
        return (build or build_agent)(client or ours[0], model=settings.model)

    agent = Agent(load)
    try:
        yield agent
    finally:
        with contextlib.suppress(Exception):  # a failed load was raised to whoever asked
            await agent.graph()
        for opened in ours:
            await opened.close()


def new_client(settings: Settings) -> AsyncOpenAI:
    """Make the SDK's client: against the real API, any OPENAI_BASE_URL, or the stand-in within this process."""
    import httpx
    from openai import AsyncOpenAI

    key, url = settings.openai_api_key, settings.openai_base_url
    http_client: Any = None  # openai 2 is built on httpx and openai 3 on httpx2; both run over an httpx client
    if settings.offline:
        from shared.offline import OfflineModel

        url, http_client = "http://stand-in/v1", httpx.AsyncClient(transport=httpx.ASGITransport(OfflineModel()))
    return AsyncOpenAI(
        api_key=key, base_url=url, http_client=http_client, timeout=MODEL_TIMEOUT_S, max_retries=MODEL_RETRIES
    )


def build_agent(
    client: AsyncOpenAI,
    *,
    model: str = "gpt-4o-mini",
    system_prompt: str = SYSTEM_PROMPT,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> Graph:
    """Compile the agent: `question` comes in, and `messages` grows by question and answer together.

    So a turn enters the history whole or not at all: a model that fails leaves no question without its answer.
    The default memory lives in this process and keeps every conversation.
    """
    from langchain_core.messages import HumanMessage, convert_to_openai_messages
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.config import get_config, get_stream_writer
    from langgraph.graph import START, MessagesState, StateGraph

    class State(MessagesState):
        question: str

    async def call_model(state: State) -> dict[str, Any]:
        options = get_config()["configurable"]
        turn_id = options.get("turn_id")
        question = HumanMessage(state["question"], id=turn_id)
        history = convert_to_openai_messages([*state["messages"], question])
        messages = [{"role": "system", "content": system_prompt}, *history]
        emit = get_stream_writer() if options["streaming"] else None
        answer = await complete(client, options["model"] or model, messages, emit)
        answer.id = f"{turn_id}-answer" if turn_id else None  # taken twice, a turn replaces itself
        return {"messages": [question, answer]}

    return StateGraph(State).add_node(call_model).add_edge(START, "call_model").compile(checkpointer or InMemorySaver())


async def ask(
    agent: Agent, message: str, conversation_id: str, *, model: str | None = None, turn_id: str | None = None
) -> Reply:
    """Take one turn in a conversation and return the answer; raises ModelError, and then the turn never happened.

    `turn_id` becomes the id of the question in the history, by which a turn that was taken can be known again.
    """
    graph = await agent.graph()
    async with agent.turn(conversation_id):
        run = _run(conversation_id, model, turn_id=turn_id)
        state = await graph.ainvoke({"question": message}, run, durability="exit")
    return as_reply(state["messages"][-1])


async def remember(agent: Agent, message: str, answer: str, conversation_id: str) -> None:
    """Write a turn that was answered without the model (from a cache) into its conversation's history."""
    from langchain_core.messages import AIMessage, HumanMessage

    graph = await agent.graph()
    told = AIMessage(answer, response_metadata={"model": "none", "finish_reason": "stop"})
    async with agent.turn(conversation_id):
        await graph.aupdate_state(_run(conversation_id, None), {"messages": [HumanMessage(message), told]})


async def stream(
    agent: Agent, message: str, conversation_id: str, *, model: str | None = None
) -> AsyncIterator[str | Reply]:
    """Like `ask`, but yields the answer's pieces of text as they come, and the whole Reply last."""
    graph = await agent.graph()
    state: Any = {}
    async with agent.turn(conversation_id):
        run = _run(conversation_id, model, streaming=True)
        events = graph.astream({"question": message}, run, stream_mode=["custom", "values"], durability="exit")
        async for mode, chunk in events:
            if mode == "custom":
                yield chunk
            else:
                state = chunk
    yield as_reply(state["messages"][-1])


def _run(
    conversation_id: str, model: str | None, *, streaming: bool = False, turn_id: str | None = None
) -> RunnableConfig:
    options = {"thread_id": conversation_id, "model": model, "streaming": streaming}
    return {"configurable": options | ({"turn_id": turn_id} if turn_id else {})}


async def complete(
    client: AsyncOpenAI, model: str, messages: list[Any], emit: Callable[[str], None] | None = None
) -> AIMessage:
    """Ask the model once; with `emit`, hand over each piece of text as it comes. Raises ModelError.

    The messages go as `extra_body`, which stands in for `messages` unchanged: the SDK holds each message that it is
    given there against its types, and 800 of them take it 90 ms of the event loop.
    """
    from langchain_core.messages import AIMessage

    text, finish_reason, usage, answered_by = "", None, None, model
    whole = {"messages": messages}
    try:
        if emit is None:
            completion = await client.chat.completions.create(model=model, messages=[], extra_body=whole)
            choice = completion.choices[0]
            text, finish_reason = choice.message.content or "", choice.finish_reason
            usage, answered_by = completion.usage, completion.model
        else:
            pieces = await client.chat.completions.create(
                model=model, messages=[], extra_body=whole, stream=True, stream_options={"include_usage": True}
            )
            async with pieces:
                async for piece in pieces:
                    usage, answered_by = piece.usage or usage, piece.model or answered_by
                    for delta in piece.choices[:1]:  # the last piece carries the usage and no choice
                        finish_reason = delta.finish_reason or finish_reason
                        if delta.delta.content:
                            text += delta.delta.content
                            emit(delta.delta.content)
            if finish_reason is None:
                raise ValueError("the stream ended before the answer did")
    except Exception as error:
        raise _model_error(error) from error
    return AIMessage(
        text,
        response_metadata={"model": answered_by, "finish_reason": finish_reason},
        usage_metadata=_usage_metadata(usage),
    )


def as_reply(message: AIMessage) -> Reply:
    """Read what `complete` wrote into a message of the state."""
    usage = None
    if counts := message.usage_metadata:
        usage = Usage(
            input_tokens=counts["input_tokens"],
            output_tokens=counts["output_tokens"],
            cached_tokens=counts.get("input_token_details", {}).get("cache_read", 0),
            reasoning_tokens=counts.get("output_token_details", {}).get("reasoning", 0),
        )
    about = message.response_metadata
    return Reply(str(message.content), about["model"], usage, about["finish_reason"])


def _usage_metadata(usage: CompletionUsage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details and usage.completion_tokens_details.reasoning_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "input_token_details": {"cache_read": cached or 0},
        "output_token_details": {"reasoning": reasoning or 0},
    }


def _model_error(error: Exception) -> ModelError:
    """Name what went wrong; anything that is not the SDK's own error is an answer nobody can read."""
    import openai

    match error:
        case openai.APITimeoutError():
            return ModelError("model_timeout")
        case openai.RateLimitError():
            after = error.response.headers.get("retry-after", "")
            return ModelError("model_busy", retry_after_s=int(after) if after.isdecimal() else 1)
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return ModelError("model_key_refused")
        case openai.NotFoundError():
            return ModelError("model_not_found")
        case openai.BadRequestError():
            return ModelError("model_request_refused")
        case openai.APIError():
            return ModelError("model_unavailable")
    return ModelError("model_bad_answer")
