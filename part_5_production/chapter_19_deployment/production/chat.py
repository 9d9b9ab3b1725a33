"""What happens to a message between validation and answer: defences, route, budget, cache, agent, and the counting.

The chat, the stream and the queue all go this way, so whatever holds for one holds for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from exercise_1_19_4_solution import preview
from exercise_1_19_6_solution import Route, SmartModelRouter
from exercise_2_19_4_solution import Metrics, counted
from exercise_2_19_6_solution import OfflineEmbedder, OpenAIEmbedder, Scope, SemanticCache, cache_status
from exercise_2_19_7_solution import WITHHELD, OutputFilter, detect, normalise
from exercise_3_19_6_solution import WORST_TOKENS, OverBudget
from fastapi import HTTPException

from production.breaker import Breaker
from production.settings import Production
from production.stores import Stores
from shared import pricing
from shared.agent import SYSTEM_PROMPT, Agent, ModelError, Reply, ask, remember, stream

if TYPE_CHECKING:
    from openai import AsyncOpenAI

REMEMBERED_VECTORS = 64
TAIL = 1_200  # characters of a stream that the output filter looks back on
log = logging.getLogger(__name__)


class Embedder:
    """Embeds once per text: the cache of this process and the shared one ask for the same vectors."""

    def __init__(self, embed: OfflineEmbedder | OpenAIEmbedder) -> None:
        self.embed, self.tokens = embed, 0
        self._known: OrderedDict[str, Any] = OrderedDict()

    async def __call__(self, text: str) -> Any:
        """Return the vector of a text."""
        if text not in self._known:
            vector: Any = self.embed(text)
            self._known[text] = await vector if isinstance(vector, Awaitable) else vector
            while len(self._known) > REMEMBERED_VECTORS:
                self._known.popitem(last=False)
        return self._known[text]

    def spent(self) -> int:
        """Return the tokens paid for since the last time."""
        total = getattr(self.embed, "tokens", 0)
        new, self.tokens = total - self.tokens, total
        return new


@dataclass(frozen=True)
class Answer:
    """What a caller gets; `cache` is the Cache-Status header."""

    text: str
    conversation_id: str
    model: str
    cache: str = "semantic; fwd=bypass"


@dataclass
class Chat:
    """One service's way from message to answer."""

    config: Production
    agent: Agent
    stores: Stores
    router: SmartModelRouter
    metrics: Metrics
    outgoing: OutputFilter
    asking: Any = ask  # the agent's own, or traced
    streaming: Any = stream
    breaker: Breaker = field(default_factory=Breaker)
    cache: SemanticCache | None = None
    embedder: Embedder | None = None

    def open(self, client: AsyncOpenAI) -> None:
        """Make the cache, once the client is there; without one every question goes to the model."""
        if not self.config.cache:
            return
        embed = OfflineEmbedder() if self.config.offline else OpenAIEmbedder(client)
        self.embedder = Embedder(embed)
        self.cache = SemanticCache(embed.threshold, embed=self.embedder)

    def admit(self, message: str, caller: str) -> tuple[str, Route]:
        """Return the message as the model should get it, and where it goes; what reads like an attack is a 400."""
        message = normalise(message)
        if found := detect(message):
            log.warning("refused a message of %s: %s", caller, found.kind)
            raise HTTPException(400, f"this reads like an instruction to the model itself ({found.kind}); rephrase it")
        return message, self.router.route(message)

    async def answer(
        self, caller: str, message: str, conversation_id: str, *, fresh: bool, turn_id: str | None = None
    ) -> Answer:
        """Answer one message; `fresh` (a conversation's first) may come from the cache. Raises as `admit` and `ask`."""
        message, route = self.admit(message, caller)
        thread = f"{caller}/{conversation_id}"
        model, status = route.model, "semantic; fwd=bypass"
        with self._told(message, conversation_id, route) as told:
            async with self._deadline(), self._budget(route):
                if fresh and self.cache is not None:
                    served, model = await self._cached(caller, message, thread, route, turn_id)
                    text, status = served.response, cache_status(served)
                    if served.hit or model == "shared":
                        await remember(self.agent, message, text, thread)
                else:
                    reply = await self._ask(caller, message, thread, route, turn_id)
                    text, model = reply.text, reply.model
                await self._finished(caller, conversation_id)
            told["cache"], told["gen_ai.response.model"] = status, model
        return Answer(self._safe(text, caller), conversation_id, model, status)

    async def stream(self, caller: str, message: str, conversation_id: str) -> AsyncGenerator[str, None]:
        """Yield the answer's pieces as they come; it bypasses the cache. Raises as `answer`, also in the middle."""
        message, route = self.admit(message, caller)
        thread, text = f"{caller}/{conversation_id}", ""
        with self._told(message, conversation_id, route) as told:
            async with self._deadline(), self._budget(route):
                with self._guarded():
                    pieces = self.streaming(self.agent, message, thread, model=route.model)
                    async with contextlib.aclosing(pieces):
                        async for piece in pieces:
                            if isinstance(piece, Reply):
                                self._count(caller, conversation_id, route, piece)
                                told["gen_ai.response.model"] = piece.model
                                continue
                            text = (text + piece)[-TAIL:]
                            if self.outgoing.leaks(text):
                                log.error("cut off a reply to %s that gives away the system prompt", caller)
                                raise ModelError("withheld")
                            yield piece
                await self._finished(caller, conversation_id)

    async def answer_queued(self, caller: str, message: str, conversation_id: str, request_id: str) -> str:
        """Answer a queued message; one that was answered when its process was killed is not asked again."""
        if known := await self.taken(f"{caller}/{conversation_id}", request_id):
            return self._safe(known, caller)
        said = await self.answer(caller, message, conversation_id, fresh=False, turn_id=request_id)
        return said.text

    def shown(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Return a history without what was withheld when it was said."""
        return [m | {"content": WITHHELD} if self.outgoing.leaks(m["content"]) else m for m in messages]

    async def taken(self, thread: str, turn_id: str) -> str | None:
        """Return the answer of a turn that was taken already, by a process that could not say so any more."""
        graph = await self.agent.graph()
        state = await graph.aget_state({"configurable": {"thread_id": thread}})
        found = (m for m in state.values.get("messages", ()) if m.id == f"{turn_id}-answer")
        return next((str(message.content) for message in found), None)

    # ------------------------------------------------------------ one step each

    async def _cached(self, caller: str, message: str, thread: str, route: Route, turn_id: str | None) -> Any:
        assert self.cache is not None
        assert self.embedder
        model, shared = "none", self.stores.answers
        scope = Scope(caller, route.model, SYSTEM_PROMPT)

        async def look_further() -> tuple[str, bool]:
            nonlocal model
            vector = await self.embedder(message) if shared and self.embedder else None
            if shared and (found := await shared.find(message, repr(scope), vector)):
                model = "shared"
                return found, True
            reply = await self._ask(caller, message, thread, route, turn_id)
            model, keep = reply.model, reply.finish_reason in ("stop", None)
            if shared and keep:
                await shared.keep(message, reply.text, repr(scope), vector)
            return reply.text, keep

        served = await self.cache.fetch(message, look_further, scope)
        if tokens := self.embedder.spent():
            cost = pricing.cost_usd(OpenAIEmbedder.model, tokens)
            self.stores.costs.record(caller, "(embeddings)", OpenAIEmbedder.model, cost, tokens=tokens)
        return served, model

    async def _ask(self, caller: str, message: str, thread: str, route: Route, turn_id: str | None) -> Reply:
        with self._guarded():
            reply: Reply = await self.asking(self.agent, message, thread, model=route.model, turn_id=turn_id)
        self._count(caller, thread.partition("/")[2], route, reply)
        return reply

    async def _finished(self, caller: str, conversation_id: str) -> None:
        for idle in await self.stores.index.record(caller, conversation_id):
            await self.stores.saver.adelete_thread(f"{caller}/{idle}")

    def _count(self, caller: str, conversation_id: str, route: Route, reply: Reply) -> None:
        used, cost, tokens = reply.usage, None, 0
        if used:
            tokens = used.input_tokens + used.output_tokens
            with contextlib.suppress(pricing.UnknownModel):
                cost = pricing.cost_usd(reply.model, used.input_tokens, used.output_tokens, used.cached_tokens)
        priced = (used.input_tokens, used.output_tokens, used.cached_tokens) if used else None
        self.stores.costs.record(caller, conversation_id, reply.model, cost, tokens=tokens)
        self.router.record(route, route.tier, reply.model, priced)
        self.metrics.record_tokens(caller, conversation_id, counted(used))

    def _safe(self, text: str, caller: str) -> str:
        if not self.outgoing.leaks(text):
            return text
        log.error("withheld a reply to %s that gives away the system prompt", caller)
        return WITHHELD

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.config.deadline_s) as limit:
                yield
        except TimeoutError:
            if not limit.expired():  # somebody else's
                raise
            raise ModelError("model_timeout") from None

    @contextlib.asynccontextmanager
    async def _budget(self, route: Route) -> AsyncIterator[None]:
        if not self.config.hard_budget:
            yield
            return
        try:
            ticket = self.stores.costs.reserve(_worst(route.model))
        except OverBudget as error:
            raise HTTPException(402, str(error)) from error
        try:
            yield
        finally:
            self.stores.costs.settle(ticket)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        self.breaker.before()
        try:
            yield
        except BaseException as error:
            self.breaker.after(error)
            raise
        self.breaker.after(None)

    @contextlib.contextmanager
    def _told(self, message: str, conversation_id: str, route: Route) -> Iterator[dict[str, Any]]:
        """Log one line about a message, when it has been answered or has failed."""
        started = time.perf_counter()
        told: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.conversation.id": conversation_id,
            "gen_ai.request.model": route.model,
            "route.tier": route.tier,
            "route.reason": json.dumps(route.reason),
        }
        if self.config.log_messages:
            told["message_preview"] = preview(message)
        try:
            yield told
        except BaseException as error:
            told["error.type"] = getattr(error, "code", None) or type(error).__name__
            raise
        finally:
            told["duration_ms"] = round((time.perf_counter() - started) * 1000, 3)
            log.info("a message was %s", "not answered" if "error.type" in told else "answered", extra=told)


def _worst(model: str) -> Decimal:
    try:
        return pricing.cost_usd(model, *WORST_TOKENS)
    except pricing.UnknownModel as error:
        raise HTTPException(402, "with a hard budget only models with a known price are asked") from error
