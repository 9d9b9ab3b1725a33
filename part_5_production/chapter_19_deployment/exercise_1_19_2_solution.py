"""Exercise 1 (19.2): list the conversations, and show the messages of one.

The book asks for GET /v1/conversations and GET /v1/conversations/{id}, with the ids tracked by us and the history read
from the agent's state: `agent.get_state()`, here its async form `graph.aget_state()`. Notice:

* A conversation belongs to the key that began it. The key's owner is part of the agent's thread id, so someone else's
  conversation is not refused but unknown: there is one 404, and nothing to guess.
* Pages follow the order of creation, which never changes. A page number would show an item twice when a new one comes.
* A turn counts when it has ended. A failed model call leaves no conversation in the list and no half turn in it.
* LangGraph's in-memory saver keeps the whole history once for every turn: 70 MB after 400 turns with 0.2 MB of text.
  One checkpoint per conversation is enough to go on talking.

Run it:    python exercise_1_19_2_solution.py             (--serve keeps it up)
Check it:  make check EX=19.2.1                           (MINE=your_file.py checks yours)

Limit: the memory of one process. A restart forgets, two workers disagree; then both halves belong in a database.
A turn reads, sends and writes the whole history: 3 ms for the 10th, 12 ms for the 400th, besides the model's own time.
"""

import asyncio
import contextlib
import itertools
import time
import uuid
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import Reply, ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, may_answer, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langgraph.checkpoint.memory import InMemorySaver
    from openai import AsyncOpenAI

__all__ = ["Conversation", "ConversationIndex", "Conversations", "Page", "UnknownConversation", "keep_only"]

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


class Conversations:
    """Keeps the index and LangGraph's in-memory saver in step: both know a conversation, or neither does.

    One turn at a time: two parallel turns would both start from the same history, and one would be lost.
    """

    def __init__(self, index: ConversationIndex | None = None) -> None:
        self.index = index or ConversationIndex()
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def turn(self, saver: "InMemorySaver", owner: str, conversation_id: str) -> AsyncIterator[str]:
        """Wait for one's turn and yield the thread id; what happens inside counts if it ends well, or not at all."""
        thread_id = self.thread_id(owner, conversation_id)
        async with self._lock(thread_id):
            before = newest(saver, thread_id)
            try:
                yield thread_id
            except BaseException:
                keep_only(saver, thread_id, before)
                raise
            keep_only(saver, thread_id, newest(saver, thread_id))
            if idle := self.index.record(owner, conversation_id):
                keep_only(saver, self.thread_id(owner, idle), None)

    async def delete(self, saver: "InMemorySaver", owner: str, conversation_id: str) -> None:
        """Forget a conversation, after the turns that were there first; raises UnknownConversation."""
        thread_id = self.thread_id(owner, conversation_id)
        async with self._lock(thread_id):
            self.index.remove(owner, conversation_id)
            keep_only(saver, thread_id, None)

    def thread_id(self, owner: str, conversation_id: str) -> str:
        """Return the agent's name for it: the same id under two keys is two conversations."""
        return f"{owner}/{conversation_id}"

    def _lock(self, thread_id: str) -> asyncio.Lock:
        return self._locks.setdefault(thread_id, asyncio.Lock())  # lives as long as someone holds or awaits it


def newest(saver: "InMemorySaver", thread_id: str) -> str | None:
    """Return the id of a thread's newest checkpoint; ids grow with time."""
    return max(saver.storage[thread_id][""], default=None) if thread_id in saver.storage else None


def keep_only(saver: "InMemorySaver", thread_id: str, checkpoint_id: str | None) -> None:
    """Drop all of a thread's checkpoints but one (None: that one too), with the values that only they refer to.

    Looks at this thread alone; the saver's own delete_thread goes through the values of all threads.
    """
    namespaces = saver.storage.get(thread_id, {})
    kept = _versions(saver, namespaces[""][checkpoint_id]) if checkpoint_id in namespaces.get("", {}) else {}
    for namespace, checkpoints in namespaces.items():
        for old in [each for each in checkpoints if each != checkpoint_id]:
            versions = _versions(saver, checkpoints.pop(old))
            saver.writes.pop((thread_id, namespace, old), None)
            for channel, version in versions.items():
                if kept.get(channel) != version:
                    saver.blobs.pop((thread_id, namespace, channel, version), None)
    if not kept:
        saver.storage.pop(thread_id, None)


def _versions(saver: "InMemorySaver", saved: tuple[Any, ...]) -> dict[str, Any]:
    return cast(dict[str, Any], saver.serde.loads_typed(saved[0])["channel_versions"])


def shown(messages: "Sequence[BaseMessage]") -> list[dict[str, str]]:
    """Return role and content of what was said aloud, in order; system and tool messages were not."""
    roles = {"human": "user", "ai": "assistant"}
    return [{"role": roles[m.type], "content": str(m.text)} for m in messages if m.type in roles and m.text]


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, conversations: Conversations | None = None
) -> FastAPI:
    """Add the list, the history and the deletion to the chat; all of them need a key and see that key's own."""
    conversations = conversations or Conversations()
    app = base_app(settings, client)

    @app.exception_handler(UnknownConversation)
    async def not_found(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "no such conversation"}, 404)

    async def saver(request: Request) -> Any:
        return (await request.app.state.agent.graph()).checkpointer

    @app.post("/v1/chat", responses=may_answer(400, 401, 502, 503, 504))
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex

        async def turn() -> Reply:
            async with conversations.turn(await saver(request), caller, conversation_id) as thread_id:
                return await ask(request.app.state.agent, body.message, thread_id)

        reply = await unless_gone(request, turn())
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.get("/v1/conversations", responses=may_answer(401, 404))
    async def list_conversations(
        caller: Caller,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = PAGE_SIZE,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        page = conversations.index.page(caller, limit=limit, after=after, order=order)
        first_id, last_id = (page.ids[0], page.ids[-1]) if page.ids else (None, None)
        return {"conversations": page.ids, "first_id": first_id, "last_id": last_id, "has_more": page.has_more}

    @app.get("/v1/conversations/{conversation_id}", responses=may_answer(401, 404))
    async def get_conversation(request: Request, conversation_id: str, caller: Caller) -> dict[str, Any]:
        graph = await request.app.state.agent.graph()
        known = conversations.index.get(caller, conversation_id)  # first: the saver makes room for any id it is asked
        state = await graph.aget_state({"configurable": {"thread_id": conversations.thread_id(caller, known.id)}})
        messages = shown(state.values.get("messages", []))
        return {"id": known.id, "created_at": int(known.created_at), "messages": messages}

    @app.delete("/v1/conversations/{conversation_id}", status_code=204, responses=may_answer(401, 404))
    async def delete_conversation(request: Request, conversation_id: str, caller: Caller) -> None:
        await conversations.delete(await saver(request), caller, conversation_id)

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
