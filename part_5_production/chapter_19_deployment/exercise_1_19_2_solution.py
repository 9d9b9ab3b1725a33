"""Exercise 1 (19.2): list the conversations, and show the messages of one.

The book asks for GET /v1/conversations and GET /v1/conversations/{id}, with the ids tracked by us and the history read
from the agent's state: `agent.get_state()`, here its async form `graph.aget_state()`. Notice:

* A conversation belongs to the key that began it. The key's owner is part of the agent's thread id, so someone else's
  conversation is not refused but unknown: there is one 404, and nothing to guess.
* Pages follow the order of creation, which never changes. A page number would show an item twice when a new one comes.
* A turn counts when it has ended. A failed model call leaves no conversation in the list and no half turn in it.
* LangGraph's own in-memory saver keeps a copy of the whole history for every turn: 400 turns take 200 times the text.
  One checkpoint per conversation is enough to go on talking.

Run it:    python exercise_1_19_2_solution.py             (--serve keeps it up)
Check it:  make check EX=19.2.1                           (MINE=your_file.py checks yours)

Limit: the memory of one process. A restart forgets, two workers disagree; then both halves belong in a database.
"""

import asyncio
import contextlib
import itertools
import time
import uuid
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, CheckpointMetadata, CheckpointTuple

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ask, build_agent
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import RunnableConfig
    from openai import AsyncOpenAI

__all__ = ["Conversation", "ConversationIndex", "Conversations", "FinishedTurns", "Page", "UnknownConversation"]

PAGE_SIZE, MAX_PAGE_SIZE = 20, 100
MAX_PER_OWNER = 1_000  # the conversation that was idle for longest makes room


class UnknownConversation(LookupError):
    """This owner has no such conversation; whether somebody else has one is nobody's business."""


@dataclass(frozen=True)
class Conversation:
    """One line of the index. `number` grows with every conversation begun and never changes: the order of pages."""

    id: str
    number: int
    created_at: float
    last_turn_at: float


@dataclass(frozen=True)
class Page:
    """A part of the list of ids; the last of them is the `after` of the next page."""

    ids: tuple[str, ...]
    has_more: bool


class ConversationIndex:
    """Knows which conversations an owner has, in the order in which they began.

    An owner keeps `max_per_owner` conversations and as many positions of removed ones, so that a page can still be
    followed by the next after its last conversation was deleted. Owners are verified keys, so their number is known.
    """

    def __init__(self, *, max_per_owner: int = MAX_PER_OWNER, clock: Callable[[], float] = time.time) -> None:
        if max_per_owner < 1:
            raise ValueError("max_per_owner must be positive")
        self.max_per_owner = max_per_owner
        self._clock = clock
        self._numbers = itertools.count(1)
        self._kept: defaultdict[str, dict[str, Conversation]] = defaultdict(dict)  # in the order of their numbers
        self._removed: defaultdict[str, OrderedDict[str, int]] = defaultdict(OrderedDict)

    def record(self, owner: str, conversation_id: str) -> str | None:
        """Note a finished turn; returns the id of the conversation that had to make room, if one had to."""
        kept, now = self._kept[owner], self._clock()
        if known := kept.get(conversation_id):
            kept[conversation_id] = replace(known, last_turn_at=now)
            return None
        idle = None
        if len(kept) == self.max_per_owner:
            idle = min(kept.values(), key=lambda row: (row.last_turn_at, row.number)).id
            self.remove(owner, idle)
        kept[conversation_id] = Conversation(conversation_id, next(self._numbers), now, now)
        self._removed[owner].pop(conversation_id, None)
        return idle

    def get(self, owner: str, conversation_id: str) -> Conversation:
        """Return one conversation; raises UnknownConversation."""
        try:
            return self._kept[owner][conversation_id]
        except KeyError:
            raise UnknownConversation(conversation_id) from None

    def remove(self, owner: str, conversation_id: str) -> None:
        """Forget one conversation, but not where it stood; raises UnknownConversation."""
        removed = self._removed[owner]
        removed[conversation_id] = self.get(owner, conversation_id).number
        del self._kept[owner][conversation_id]
        if len(removed) > self.max_per_owner:
            removed.popitem(last=False)

    def page(
        self, owner: str, *, limit: int = PAGE_SIZE, after: str | None = None, order: Literal["asc", "desc"] = "desc"
    ) -> Page:
        """Return up to `limit` ids, the newest first unless `order` is "asc"; raises UnknownConversation for `after`.

        Pages neither repeat nor skip a conversation, whatever begins or goes in between.
        """
        rows = list(self._kept[owner].values())
        if after is not None:
            start = self._removed[owner].get(after) or self.get(owner, after).number
            rows = [row for row in rows if (row.number < start if order == "desc" else row.number > start)]
        if order == "desc":
            rows.reverse()
        return Page(tuple(row.id for row in rows[:limit]), has_more=len(rows) > limit)


class FinishedTurns(BaseCheckpointSaver[int]):
    """A LangGraph checkpointer that keeps one checkpoint per thread: the state after its last finished turn.

    What the graph saves within `turn(thread_id)` is kept if the turn ends well, and is dropped otherwise and outside.
    So a thread takes the room of its messages, once. Limit: no way back to earlier states, no interrupts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: dict[str, tuple[Checkpoint, CheckpointMetadata] | None] = {}
        self._finished: dict[str, tuple[str, bytes]] = {}

    @contextlib.contextmanager
    def turn(self, thread_id: str) -> Iterator[None]:
        """Keep what the graph saves for this thread inside the block, unless the block raises."""
        self._running[thread_id] = None
        try:
            yield
            if (newest := self._running[thread_id]) is not None:
                self._finished[thread_id] = self.serde.dumps_typed(newest)
        finally:
            del self._running[thread_id]

    def get_tuple(self, config: "RunnableConfig") -> CheckpointTuple | None:
        """Return the state after the last finished turn, also to those who look while the next one runs."""
        thread_id, namespace = config["configurable"]["thread_id"], config["configurable"].get("checkpoint_ns", "")
        saved = None if namespace else self._finished.get(thread_id)
        if saved is None:
            return None
        checkpoint, metadata = self.serde.loads_typed(saved)
        return CheckpointTuple(_config(thread_id, checkpoint["id"]), checkpoint, metadata, None, [])

    def put(
        self, config: "RunnableConfig", checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: Any
    ) -> "RunnableConfig":
        """Hold the newest state of the running turn, not yet serialized; subgraphs need not be remembered."""
        thread_id, namespace = config["configurable"]["thread_id"], config["configurable"].get("checkpoint_ns", "")
        if namespace == "" and thread_id in self._running:
            self._running[thread_id] = checkpoint, metadata
        return _config(thread_id, checkpoint["id"], namespace)

    def put_writes(
        self, config: "RunnableConfig", writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do nothing: these are for resuming in the middle of a turn."""

    def delete_thread(self, thread_id: str) -> None:
        """Forget a thread; an unknown one is no error."""
        self._finished.pop(thread_id, None)

    async def aget_tuple(self, config: "RunnableConfig") -> CheckpointTuple | None:
        """Like get_tuple: nothing here waits."""
        return self.get_tuple(config)

    async def aput(self, *args: Any) -> "RunnableConfig":
        """Like put."""
        return self.put(*args)

    async def aput_writes(self, *args: Any) -> None:
        """Like put_writes."""

    async def adelete_thread(self, thread_id: str) -> None:
        """Like delete_thread."""
        self.delete_thread(thread_id)


def _config(thread_id: str, checkpoint_id: str, namespace: str = "") -> "RunnableConfig":
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": namespace, "checkpoint_id": checkpoint_id}}


class Conversations:
    """Keeps the index and the checkpoints in step: both know a conversation, or neither does.

    One turn at a time: two parallel turns would both start from the same history, and one would be lost.
    """

    def __init__(self, index: ConversationIndex | None = None, checkpoints: FinishedTurns | None = None) -> None:
        self.index = index or ConversationIndex()
        self.checkpoints = checkpoints or FinishedTurns()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, owner: str, conversation_id: str) -> AsyncIterator[str]:
        """Wait for one's turn and yield the thread id; what happens inside counts if it ends well, or not at all."""
        thread_id = self.thread_id(owner, conversation_id)
        async with self._lock(thread_id):
            with self.checkpoints.turn(thread_id):
                yield thread_id
            if evicted := self.index.record(owner, conversation_id):
                self.checkpoints.delete_thread(self.thread_id(owner, evicted))

    async def delete(self, owner: str, conversation_id: str) -> None:
        """Forget a conversation, after the turns that were there first; raises UnknownConversation."""
        thread_id = self.thread_id(owner, conversation_id)
        async with self._lock(thread_id):
            self.index.remove(owner, conversation_id)
            self.checkpoints.delete_thread(thread_id)

    def thread_id(self, owner: str, conversation_id: str) -> str:
        """Return the agent's name for it: the same id under two keys is two conversations."""
        return f"{owner}/{conversation_id}"

    def _lock(self, thread_id: str) -> asyncio.Lock:
        return self._locks.setdefault(thread_id, asyncio.Lock())  # lives as long as someone holds or awaits it


def shown(messages: "Sequence[BaseMessage]") -> list[dict[str, str]]:
    """Return role and content of what was said aloud, in order; system and tool messages were not."""
    roles = {"human": "user", "ai": "assistant"}
    return [{"role": roles[m.type], "content": str(m.text)} for m in messages if m.type in roles and m.text]


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, conversations: Conversations | None = None
) -> FastAPI:
    """Add the list, the history and the deletion to the chat; all of them need a key and see that key's own."""
    conversations = conversations or Conversations()
    app = base_app(settings, client, build=partial(build_agent, checkpointer=conversations.checkpoints))

    @app.exception_handler(UnknownConversation)
    async def not_found(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "no such conversation"}, 404)

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        async with conversations.turn(caller, conversation_id) as thread_id:
            reply = await unless_gone(request, ask(request.app.state.agent, body.message, thread_id))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.get("/v1/conversations")
    async def list_conversations(
        caller: Caller,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = PAGE_SIZE,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        page = conversations.index.page(caller, limit=limit, after=after, order=order)
        first_id, last_id = (page.ids[0], page.ids[-1]) if page.ids else (None, None)
        return {"conversations": page.ids, "first_id": first_id, "last_id": last_id, "has_more": page.has_more}

    @app.get("/v1/conversations/{conversation_id}")
    async def get_conversation(request: Request, conversation_id: str, caller: Caller) -> dict[str, Any]:
        graph = await request.app.state.agent.graph()
        thread_id = conversations.thread_id(caller, conversation_id)
        state = await graph.aget_state({"configurable": {"thread_id": thread_id}})
        known = conversations.index.get(caller, conversation_id)
        messages = shown(state.values.get("messages", []))
        return {"id": known.id, "created_at": int(known.created_at), "messages": messages}

    @app.delete("/v1/conversations/{conversation_id}", status_code=204)
    async def delete_conversation(conversation_id: str, caller: Caller) -> None:
        await conversations.delete(caller, conversation_id)

    return app


def main(argv: list[str] | None = None) -> int:
    """Talk twice, list, read, look with another key, delete."""
    steps = [
        demo.Send("POST", "/v1/chat", {"message": "My name is Ada.", "conversation_id": "intro"}, note="a first turn"),
        demo.Send("POST", "/v1/chat", {"message": "What is my name?", "conversation_id": "intro"}, note="a second one"),
        demo.Send("POST", "/v1/chat", {"message": "What is 6 * 7?"}, note="another conversation"),
        demo.Send("GET", "/v1/conversations", note="the list, newest first"),
        demo.Send("GET", "/v1/conversations/intro", note="the messages of one"),
        demo.Send("GET", "/v1/conversations/intro", key=1, note="the same with another key"),
        demo.Send("DELETE", "/v1/conversations/intro", note="delete it"),
        demo.Send("GET", "/v1/conversations", note="the list again"),
    ]
    return demo.run(__doc__, create_app, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
