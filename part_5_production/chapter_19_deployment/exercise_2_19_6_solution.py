"""Exercise 2 (19.6): serve a question from the cache when it means the same as an earlier one.

The book asks for a cache that finds "How's the weather today?" when "What's the weather?" is known, by the similarity
of embeddings over a threshold, and for the improvement in hit rate. Notice:

* A wrong hit is worse than a miss, and no threshold prevents it: to an embedding "10 USD" and "100 USD", or "safe" and
  "not safe", are nearly one thing. So a guard reads both questions and names what differs; it has the last word.
* The guard refuses what it does not understand: a word that the other question lacks is a difference, unless
  `question_words.txt` says that it adds nothing or means the same. Teach it the words of your domain there.
* The key has a scope: who asks, which model, which system prompt. Only a conversation's first turn is looked up.
* A threshold belongs to its embedder; `--sweep` finds yours on your own pairs, with an honest bound.

Run it:    python exercise_2_19_6_solution.py             (--serve keeps it up)
Sweep it:  python exercise_2_19_6_solution.py --sweep ../../tests/data/question_pairs.jsonl
Check it:  make check EX=19.6.2                           (MINE=your_file.py checks yours)

Limit: one process, one language. Questions that are not in English hit when they are nearly word for word the same.
"""

import argparse
import asyncio
import inspect
import logging
import math
import random
import sys
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from fastapi import FastAPI, Request, Response

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from question_guard import OfflineEmbedder, differ, is_personal, is_storable, normalise, same_answer
from question_sweep import report
from shared import demo
from shared.agent import SYSTEM_PROMPT, Reply, ask, new_client, open_agent, remember
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings
from shared.pricing import cost_usd

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from openai import AsyncOpenAI

    Vector = NDArray[np.float32]
    Embed = Callable[[str], Sequence[float] | Vector | Awaitable[Sequence[float]]]

__all__ = ["CacheEntry", "Hit", "OfflineEmbedder", "OpenAIEmbedder", "Scope", "SemanticCache", "Served", "differ"]

log = logging.getLogger(__name__)

MAX_ENTRIES = 10_000  # 62 MB of 1536 float32
TTL_S = 3600.0  # as old as an answer may be: the weather of an hour ago still is "the weather"
HEAD = 256  # dimensions that are always compared; the others only where they can still matter
MAX_GUARDED = 1_000  # candidates shown to the guard, nearest first
MAX_ASKED = 64  # misses whose vector waits for `set`
SHARED = "shared with every caller"
NO_SCOPE = "a program with one user, one model and one prompt"  # a service passes a Scope every time

# ---------------------------------------------------------------- the live embedder (the offline one: question_guard)


class OpenAIEmbedder:
    """Asks `text-embedding-3-small`. Its paraphrases often score under 0.92; the guard makes a low threshold safe."""

    threshold = 0.60
    model = "text-embedding-3-small"

    def __init__(self, client: "AsyncOpenAI") -> None:
        self._client = client
        self.tokens = 0  # what embedding has cost so far

    async def __call__(self, text: str) -> list[float]:
        answer = await self._client.embeddings.create(model=self.model, input=text)
        self.tokens += answer.usage.total_tokens
        return answer.data[0].embedding


# ---------------------------------------------------------------- the cache


@dataclass(frozen=True)
class Scope:
    """Whose answer this is. All of it is part of the key; to share between callers, say `caller=SHARED`.

    `context` is what the answer depends on besides the message; the history of a conversation, for one.
    """

    caller: str
    model: str
    system_prompt: str
    context: str = ""


@dataclass(frozen=True)
class CacheEntry:
    """One answered question."""

    message: str
    response: str
    key: tuple[Hashable, str]
    expires_at: float


class Hit(NamedTuple):
    """What `get` finds: the answer, how near its question is (1.0 for the same text), and whether it is the same."""

    response: str
    similarity: float
    is_exact_match: bool


@dataclass(frozen=True)
class Served:
    """What `fetch` answers; `hit` is None when the model was asked."""

    response: str
    hit: Hit | None = None


@dataclass
class Stats:
    """Counts since the start: `refused` by the guard though near enough, `verified` by asking the model again."""

    exact: int = 0
    similar: int = 0
    missed: int = 0
    embedded: int = 0
    refused: int = 0
    verified: int = 0
    disagreed: int = 0

    def rates(self) -> dict[str, float]:
        """Return the hit rate, and the one that exact text alone would have had."""
        asked = self.exact + self.similar + self.missed
        share = 1 / asked if asked else 0.0
        return {"hit_rate": (self.exact + self.similar) * share, "hit_rate_exact_only": self.exact * share}


@dataclass
class _Flight:
    task: "asyncio.Task[Served]"
    waiting: int = 0


class SemanticCache:
    """Finds the answer to a question that means the same as one before, within a scope.

    Vectors are float32 rows of length 1 in one matrix, so a lookup is one product, in place of a loop. At most
    `max_entries` are kept, the least recently used goes first, and none is served after `ttl_s` seconds.
    `embed` may be any function from text to vector, async for `fetch` alone. Safe to call from threads.

    The scope of `fetch`, which a service calls, must be given. `get` and `set` keep the chapter's plain `get(message)`
    for a program with one user, one model and one prompt: without a scope they share one of their own.
    """

    def __init__(
        self,
        similarity_threshold: float = 0.92,
        *,
        embed: "Embed | None" = None,
        guard: Callable[[str, str], str] = differ,
        max_entries: int = MAX_ENTRIES,
        ttl_s: float = TTL_S,
        verify_share: float = 0.0,
        agree: Callable[[str, str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        if not 0 < similarity_threshold <= 1 or max_entries < 1 or ttl_s <= 0 or not 0 <= verify_share <= 1:
            raise ValueError("a threshold in (0, 1], positive max_entries and ttl_s, a verify_share in [0, 1]")
        self.similarity_threshold, self.max_entries, self.ttl_s = similarity_threshold, max_entries, ttl_s
        self.verify_share = verify_share
        self.entries: list[CacheEntry] = []  # entry i has row i
        self.stats = Stats()
        self._embed, self._guard, self._agree = embed or OfflineEmbedder(), guard, agree or same_answer
        self._clock, self._chance = clock, chance
        self._lock = threading.RLock()
        self._row: OrderedDict[tuple[Hashable, str], int] = OrderedDict()  # least recently used first
        self._asked: OrderedDict[str, Vector] = OrderedDict()  # vectors of misses, for the `set` that follows
        self._flights: dict[tuple[Hashable, str], _Flight] = {}
        self._head = self._tail = np.empty((0, 0), np.float32)
        self._rest = np.empty(0, np.float32)  # the length of each row's tail
        self._scope = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, message: str, scope: Hashable = NO_SCOPE) -> Hit | None:
        """Return the answer to this question or to one that means the same; exact text first, without an embedding."""
        if entry := self._exact(message, scope):
            return Hit(entry.response, 1.0, is_exact_match=True)
        found = vector = None
        if not is_personal(message):
            vector = self._get_embedding(message)
            found = self._similar(message, vector, scope)
        if found is None:
            with self._lock:
                self.stats.missed += 1
                if vector is not None:
                    self._asked[message] = vector
                    if len(self._asked) > MAX_ASKED:
                        self._asked.popitem(last=False)
            return None
        return Hit(found[0].response, found[1], is_exact_match=False)

    def set(self, message: str, response: str, scope: Hashable = NO_SCOPE) -> bool:
        """Keep an answer; False when it is one that must not be kept (empty, a refusal, personal)."""
        if not is_storable(message, response):
            return False
        with self._lock:
            vector = self._asked.pop(message, None)
        self._store(message, response, self._get_embedding(message) if vector is None else vector, scope)
        return True

    async def fetch(self, message: str, model: Callable[[], Awaitable[tuple[str, bool]]], scope: Hashable) -> Served:
        """Return the cached answer, or what `model()` says, with whether it may be kept.

        The same question asked at the same time is asked once. Whoever leaves does not stop it for the others; when
        the last one leaves, it is cancelled. An error goes to everyone who waits, and is not kept.
        """
        verify = self._chance() < self.verify_share
        if not verify and (entry := self._exact(message, scope)):
            return Served(entry.response, Hit(entry.response, 1.0, is_exact_match=True))
        key = scope, normalise(message)
        flight = self._flights.get(key)
        leads = flight is None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(self._fly(message, model, scope, verify)))
        flight.waiting += 1
        try:
            served = await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if flight.task.done() or not flight.waiting:
                flight.task.cancel()
                if self._flights.get(key) is flight:
                    del self._flights[key]
        if leads or served.hit:
            return served
        self.stats.exact += 1
        return Served(served.response, Hit(served.response, 1.0, is_exact_match=True))

    async def _fly(
        self, message: str, model: Callable[[], Awaitable[tuple[str, bool]]], scope: Hashable, verify: bool
    ) -> Served:
        entry = self._exact(message, scope) if verify else None
        found, vector = (entry, 1.0) if entry else None, None
        if not found and not is_personal(message):
            try:
                answer = self._embed(message)
                vector = self._unit(await answer if inspect.isawaitable(answer) else answer)
            except Exception:
                log.exception("no embedding: the question goes to the model and is not kept")
            else:
                found = self._similar(message, vector, scope)
        hit = Hit(found[0].response, found[1], is_exact_match=entry is not None) if found else None
        if hit and not verify:
            return Served(hit.response, hit)
        try:
            response, keep = await model()
        except Exception:
            if not hit:
                raise
            log.exception("a cached answer could not be verified and is served as it is")
            return Served(hit.response, hit)
        if found:
            self.stats.verified += 1
            if self._agree(found[0].response, response):
                return Served(response)
            self.stats.disagreed += 1
            self._forget(found[0])
        else:
            self.stats.missed += 1
        if keep and vector is not None and is_storable(message, response):
            self._store(message, response, vector, scope)
        return Served(response)

    def _get_embedding(self, text: str) -> "Vector":
        answer = self._embed(text)
        if inspect.iscoroutine(answer):
            answer.close()
            raise TypeError("this embed is async: call `await cache.fetch(...)`, or give one that is not")
        return self._unit(answer)

    def _unit(self, answer: Any) -> "Vector":
        """Return a float32 vector of length 1; of zeros, similar to nothing, where there is no direction."""
        self.stats.embedded += 1
        vector = np.asarray(answer, np.float64)
        length = float(np.linalg.norm(vector))
        usable = 0 < length < math.inf
        return (vector / length if usable else np.zeros_like(vector)).astype(np.float32)

    def _cosine_similarity(self, a: Sequence[float], b: Sequence[float]) -> float:
        """Return the cosine of two vectors' angle; 0 when one of them is zero."""
        lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(np.dot(a, b)) / lengths if lengths else 0.0

    def _exact(self, message: str, scope: Hashable) -> CacheEntry | None:
        with self._lock:
            key = scope, normalise(message)
            row = self._row.get(key)
            if row is None:
                return None
            entry = self.entries[row]
            if entry.expires_at <= self._clock():
                self._drop(row)
                return None
            self._row.move_to_end(key)
            self.stats.exact += 1
            return entry

    def _similar(self, message: str, vector: "Vector", scope: Hashable) -> tuple[CacheEntry, float] | None:
        with self._lock:
            for row, similarity in self._near(vector, scope):
                entry = self.entries[row]
                if entry.expires_at <= self._clock() or entry.key[0] != scope:
                    continue
                if self._guard(message, entry.message):
                    self.stats.refused += 1
                    continue
                self._row.move_to_end(entry.key)
                self.stats.similar += 1
                return entry, similarity
        return None

    def _near(self, vector: "Vector", scope: Hashable) -> list[tuple[int, float]]:
        """Return the rows over the threshold, nearest first; exact, and mostly without reading the tails.

        By Cauchy-Schwarz the tails of two vectors add at most the product of their lengths to the product of the
        heads. Where that cannot reach the threshold, the tail is not read.
        """
        n = len(self.entries)
        if not n or not vector.any():
            return []
        if len(vector) != self._head.shape[1] + self._tail.shape[1]:
            raise ValueError("the embedder changed its number of dimensions: start with an empty cache")
        scores = self._head[:n] @ vector[:HEAD]
        tail, least = vector[HEAD:], self.similarity_threshold - 1e-6
        possible = scores + self._rest[:n] * np.linalg.norm(tail)
        rows = np.flatnonzero((possible >= least) & (self._scope[:n] == hash(scope)))
        if len(rows) > n // 8:  # gathering rows costs more than reading all of them in order
            scores += self._tail[:n] @ tail
        else:
            scores[rows] += self._tail[rows] @ tail
        rows = rows[scores[rows] >= least]
        rows = rows[np.argsort(-scores[rows], kind="stable")][:MAX_GUARDED]
        return [(int(row), min(1.0, float(scores[row]))) for row in rows]

    def _store(self, message: str, response: str, vector: "Vector", scope: Hashable) -> None:
        key = scope, normalise(message)
        entry = CacheEntry(message, response, key, self._clock() + self.ttl_s)
        with self._lock:
            if key in self._row:
                row = self._row[key]
            elif len(self.entries) < self.max_entries:
                row = len(self.entries)
                self.entries.append(entry)
                if row == len(self._rest):
                    self._grow(len(vector))
            else:
                _, row = self._row.popitem(last=False)
            self.entries[row] = entry
            self._row[key] = row
            self._row.move_to_end(key)
            self._head[row], self._tail[row] = vector[:HEAD], vector[HEAD:]
            self._rest[row] = np.linalg.norm(vector[HEAD:])
            self._scope[row] = hash(scope)

    def _grow(self, dimensions: int) -> None:
        """Double the room, up to `max_entries`; the copies cost each row two moves in its life."""
        rows = min(self.max_entries, max(64, 2 * len(self._rest)))
        head = min(HEAD, dimensions)

        def bigger(old: "NDArray[Any]", *shape: int) -> "NDArray[Any]":
            new = np.empty((rows, *shape), old.dtype)
            if len(old):
                new[: len(old)] = old
            return new

        self._head, self._tail = bigger(self._head, head), bigger(self._tail, dimensions - head)
        self._rest, self._scope = bigger(self._rest), bigger(self._scope)

    def _drop(self, row: int) -> None:
        """Forget an entry; the last row moves into its place, so that the rows stay without gaps."""
        last = len(self.entries) - 1
        del self._row[self.entries[row].key]
        if row != last:
            self.entries[row] = self.entries[last]
            self._row[self.entries[row].key] = row
            for rows in (self._head, self._tail, self._rest, self._scope):
                rows[row] = rows[last]
        self.entries.pop()

    def _forget(self, entry: CacheEntry) -> None:
        with self._lock:
            row = self._row.get(entry.key)
            if row is not None and self.entries[row] is entry:
                self._drop(row)


# ---------------------------------------------------------------- the service


def create_app(
    settings: Settings | None = None,
    *,
    client: "AsyncOpenAI | None" = None,
    cache: SemanticCache | None = None,
    shared: bool = False,
) -> FastAPI:
    """Put the cache before the agent; `shared=True` lets all callers share answers, otherwise nobody does."""
    settings = settings or Settings.load()

    @asynccontextmanager
    async def with_cache(app: FastAPI) -> AsyncIterator[None]:
        if cache is not None or settings.offline:
            app.state.cache = (
                cache if cache is not None else SemanticCache(OfflineEmbedder.threshold, embed=OfflineEmbedder())
            )
            yield
            return
        embeddings = client if client is not None else await asyncio.to_thread(new_client, settings)
        app.state.cache = SemanticCache(OpenAIEmbedder.threshold, embed=OpenAIEmbedder(embeddings))
        yield
        if client is None:
            await embeddings.close()

    app = base_app(settings, client, lifespan=with_cache)

    @app.post("/v1/chat")
    async def chat(request: Request, response: Response, body: ChatRequest, caller: Caller) -> ChatResponse:
        agent, cache = request.app.state.agent, request.app.state.cache
        conversation_id = body.conversation_id or uuid.uuid4().hex
        thread = f"{caller}/{conversation_id}"

        async def answer() -> tuple[str, bool]:
            reply = await ask(agent, body.message, thread)
            return reply.text, reply.finish_reason in ("stop", None)  # an answer that was cut off is not kept

        if body.conversation_id:  # what was said before is part of the question
            text, _ = await unless_gone(request, answer())
            response.headers["Cache-Status"] = "semantic; fwd=bypass"
            return ChatResponse(response=text, conversation_id=conversation_id)
        scope = Scope(SHARED if shared else caller, settings.model, SYSTEM_PROMPT)
        served = await unless_gone(request, cache.fetch(body.message, answer, scope))
        if served.hit:
            await remember(agent, body.message, served.response, thread)  # so that the next turn knows this one
        response.headers["Cache-Status"] = cache_status(served)
        return ChatResponse(response=served.response, conversation_id=conversation_id)

    @app.get("/v1/cache")
    async def counts(request: Request, _: Caller) -> dict[str, Any]:
        """How well the cache does: counts, and what it would have served by exact text alone."""
        stats = request.app.state.cache.stats
        return {"entries": len(request.app.state.cache), **vars(stats), **stats.rates()}

    return app


def cache_status(served: Served) -> str:
    """Write RFC 9211's header: a hit with its similarity, or the request went on to the model."""
    if served.hit is None:
        return "semantic; fwd=miss"
    kind = "exact" if served.hit.is_exact_match else "similar"
    return f'semantic; hit; detail="{kind} {served.hit.similarity:.2f}"'


# ---------------------------------------------------------------- what it is worth


TRACE = tuple(  # (question, what it asks): a service's morning; the same number needs the same answer
    (question, meaning)
    for meaning, questions in enumerate(
        (
            (
                "What's the weather?",
                "How's the weather today?",
                "what is the weather like today?",
                "What's the weather?",
            ),
            ("What's the weather in Paris?", "How is the weather in Paris?"),
            ("How do I reset my password?", "I forgot my password, how can I reset it?", "How can I reset a password?"),
            ("How do I boil an egg?", "What's the best way to boil eggs?", "How do I boil an egg?"),
            ("Convert 10 USD to EUR", "convert 10 USD to EUR"),
            ("Convert 100 USD to EUR",),
            ("Convert 10 EUR to USD",),
            ("Is it safe to take aspirin?", "Is it safe to take aspirin"),
            ("Is it not safe to take aspirin?",),
            ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
            ("Who wrote Dracula?",),
            ("How do I delete my account?", "How can I remove my account?"),
        )
    )
    for question in questions
)


@dataclass(frozen=True)
class Measured:
    """One way of caching on one trace. Money is what the spared answers cost, less what the embeddings did."""

    asked: int
    hits: int
    wrong: int
    elapsed_ms: float
    saved_usd: Decimal


async def measure(
    settings: Settings,
    cache: SemanticCache,
    trace: Sequence[tuple[str, int]],
    *,
    embedder: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Send a trace through a cache, one after the other; `embedder` is the model to pay for, if any."""
    replies: dict[str, tuple[Reply, int]] = {}  # by text: who got which answer
    hits = wrong = 0
    saved = Decimal(0)
    started = clock()
    async with open_agent(settings) as agent:
        for question, meaning in trace:

            async def answer(question: str = question, meaning: int = meaning) -> tuple[str, bool]:
                reply = await ask(agent, question, uuid.uuid4().hex)
                replies[reply.text] = reply, meaning
                return reply.text, True

            served = await cache.fetch(question, answer, Scope("trace", settings.model, SYSTEM_PROMPT))
            if served.hit:
                reply, meant = replies[served.response]
                hits, wrong = hits + 1, wrong + (meant != meaning)
                if reply.usage:
                    saved += cost_usd(reply.model, reply.usage.input_tokens, reply.usage.output_tokens)
        elapsed_ms = 1000 * (clock() - started)
    if embedder:  # about a token per word and sign
        saved -= cost_usd(embedder, cache.stats.embedded * sum(len(q.split()) + 1 for q, _ in trace) // len(trace))
    return Measured(len(trace), hits, wrong, elapsed_ms, saved)


def improvement(settings: Settings) -> str:
    """Compare, on one trace: exact text alone, a threshold alone, and the threshold with its guard."""

    def exact_only(text: str) -> list[float]:
        return [0.0]  # a zero vector is similar to nothing

    embed, least, paid = OfflineEmbedder(), OfflineEmbedder.threshold, OpenAIEmbedder.model
    lines = [f"one trace of {len(TRACE)} questions, the offline embedder, three ways of caching"]
    for name, cache, embedder in (
        ("exact text only", SemanticCache(embed=exact_only), ""),
        ("threshold 0.50, no guard", SemanticCache(0.5, embed=embed, guard=lambda a, b: ""), paid),
        (f"threshold {least:.2f} and guard", SemanticCache(least, embed=embed), paid),
    ):
        m = asyncio.run(measure(settings, cache, TRACE, embedder=embedder))
        share = f"{m.hits}/{m.asked} hits ({m.hits / m.asked:.0%}), {m.wrong} wrong"
        saved = f"saved {1000 * m.saved_usd:.3f} USD in 1,000 such traces"
        lines.append(f"  {name:26}{share:28}{m.elapsed_ms:7.0f} ms   {saved}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Show a hit, a refused hit and a miss, then what the cache is worth; or sweep thresholds over labelled pairs."""
    args = sys.argv[1:] if argv is None else argv
    if "--sweep" in args:
        parser = argparse.ArgumentParser(description="Find the threshold that fits an embedder, on labelled pairs.")
        parser.add_argument(
            "--sweep", type=Path, required=True, metavar="PAIRS.jsonl", help='{"a", "b", "same"} a line'
        )
        print(report(parser.parse_args(args).sweep, OfflineEmbedder()))
        return 0

    def said(message: str, note: str, key: int = 0) -> demo.Send:
        return demo.Send("POST", "/v1/chat", {"message": message}, key=key, note=note, show=("Cache-Status",))

    steps = [
        said("What's the weather?", "the first question goes to the model"),
        said("How's the weather today?", "other words, one meaning"),
        said("What's the weather in Paris?", "much the same words, another meaning"),
        said("Convert 10 USD to EUR", "a number ..."),
        said("Convert 100 USD to EUR", "... and another one"),
        said("What's the weather?", "what one caller asked is not served to another", key=1),
        demo.Send("GET", "/v1/cache", note="how it does so far"),
    ]
    status = demo.run(__doc__, create_app, steps, args)
    if not status and "--serve" not in args:
        print("\n" + improvement(Settings.load({"OFFLINE": "1"})))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
