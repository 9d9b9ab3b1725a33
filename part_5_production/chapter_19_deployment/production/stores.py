"""Where state lives: in one process and its SQLite files, or in Redis and PostgreSQL that many processes share.

Each store keeps the interface of the exercise that it takes further; `open_stores` picks by the two variables.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from exercise_1_19_2_solution import Conversation, ConversationIndex, Page
from exercise_2_19_5_solution import Journal, QueuedRequest, RequestQueue
from exercise_3_19_2_solution import RateLimiter, Window
from exercise_3_19_6_solution import CostDashboard

from production.settings import Production

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver

log = logging.getLogger(__name__)
CLEANUP_S = 10.0  # after draining: to cancel what is left, write, and close; then the process is ended
JOBS_DRAIN_S = 5.0  # of those, for the jobs under way
Work = Callable[[QueuedRequest], Awaitable[str]]
Order = Literal["asc", "desc"]


class Limits(Protocol):
    """Counts a caller's requests: `hit` says whether one is accepted, and where the caller stands."""

    async def hit(self, key: str) -> tuple[bool, Window]: ...


class Index(Protocol):
    """Knows an owner's conversations; raises UnknownConversation. `record` returns the ids that made room."""

    async def record(self, owner: str, conversation_id: str) -> list[str]: ...
    async def get(self, owner: str, conversation_id: str) -> Conversation: ...
    async def remove(self, owner: str, conversation_id: str) -> None: ...
    async def page(self, owner: str, *, limit: int, after: str | None, order: Order) -> Page: ...


class Jobs(Protocol):
    """Takes requests at once and answers them in order, one at a time per conversation."""

    async def enqueue(
        self, message: str, *, caller: str, conversation_id: str | None = None, idempotency_key: str | None = None
    ) -> QueuedRequest: ...
    async def wait(self, request_id: str, timeout_s: float, *, caller: str) -> QueuedRequest | None: ...
    async def cancel(self, request_id: str, *, caller: str) -> QueuedRequest | None: ...
    def retry_after_s(self, request: QueuedRequest) -> int: ...


class Claims(Protocol):
    """Lets one process do what only one should: True for the first who claims a name within `for_s` seconds."""

    async def claim(self, name: str, for_s: float) -> bool: ...
    async def give_back(self, name: str) -> None: ...


class Answers(Protocol):
    """Answers that processes share, behind the cache that each has: found by text, or by vector and guard."""

    async def find(self, message: str, scope: str, vector: Any) -> str | None: ...
    async def keep(self, message: str, response: str, scope: str, vector: Any) -> None: ...


class Counters(Protocol):
    """Brings the Prometheus text of all processes together; of one process, it is that one's."""

    async def combined(self, own: str) -> str: ...


@dataclass
class Stores:
    """Everything that outlives a request. `turn` (None: the agent's own) lets one turn at a time into a conversation.

    `checks` are what readiness asks.
    """

    limits: Limits
    index: Index
    saver: BaseCheckpointSaver[Any]
    costs: CostDashboard
    claims: Claims
    counters: Counters
    open_jobs: Callable[[Work], AbstractAsyncContextManager[Jobs]]
    turn: Callable[[str], AbstractAsyncContextManager[None]] | None = None
    answers: Answers | None = None
    checks: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)


# ---------------------------------------------------------------- in one process


class LocalLimits:
    """The limiter of exercise 3 in section 19.2, awaited."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter = limiter

    async def hit(self, key: str) -> tuple[bool, Window]:
        """Count one request."""
        accepted = self.limiter.hit(key)
        return accepted, self.limiter.window(key)


class LocalIndex:
    """The index of exercise 1 in section 19.2, awaited; `save` is told of each change that should last."""

    def __init__(
        self, index: ConversationIndex | None = None, save: Callable[[str, str, Conversation | None], Any] | None = None
    ) -> None:
        self.index, self._save = index or ConversationIndex(), save

    async def record(self, owner: str, conversation_id: str) -> list[str]:
        """Note a finished turn."""
        idle = self.index.record(owner, conversation_id)
        await self._saved(owner, conversation_id, self.index.get(owner, conversation_id))
        if idle is None:
            return []
        await self._saved(owner, idle, None)
        return [idle]

    async def get(self, owner: str, conversation_id: str) -> Conversation:
        """Return one conversation."""
        return self.index.get(owner, conversation_id)

    async def remove(self, owner: str, conversation_id: str) -> None:
        """Forget one conversation."""
        self.index.remove(owner, conversation_id)
        await self._saved(owner, conversation_id, None)

    async def page(self, owner: str, *, limit: int, after: str | None, order: Order) -> Page:
        """Return a part of the list."""
        return self.index.page(owner, limit=limit, after=after, order=order)

    async def _saved(self, owner: str, conversation_id: str, row: Conversation | None) -> None:
        if self._save:
            await self._save(owner, conversation_id, row)


class LocalClaims:
    """Claims within one process: names and when they end; what has ended is forgotten with the next claim."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    async def claim(self, name: str, for_s: float) -> bool:
        """Claim a name."""
        now = self._clock()
        self._until = {known: until for known, until in self._until.items() if until > now}
        return self._until.setdefault(name, now + for_s) == now + for_s

    async def give_back(self, name: str) -> None:
        """Let others claim it."""
        self._until.pop(name, None)


class LocalCounters:
    """One process: its own text is all."""

    async def combined(self, own: str) -> str:
        """Return the text as it is."""
        return own


# ---------------------------------------------------------------- which ones


@contextlib.asynccontextmanager
async def open_stores(config: Production) -> AsyncIterator[Stores]:
    """Open what the settings ask for, and close it; the packages of the scaled ones are imported only then."""
    async with contextlib.AsyncExitStack() as stack:
        if config.database_url:
            from production.postgres_stores import open_postgres

            stores = await stack.enter_async_context(open_postgres(config, embedded(config)))
        else:
            from production.sqlite_stores import open_sqlite

            stores = await stack.enter_async_context(open_sqlite(config, embedded(config)))
        if config.redis_url:
            from production.redis_stores import open_redis

            stores = await stack.enter_async_context(open_redis(config, stores))
        yield stores


def store_errors(config: Production) -> list[type[Exception]]:
    """Return what the stores raise when they cannot be reached."""
    kinds: list[type[Exception]] = [sqlite3.OperationalError]
    if config.database_url:
        import psycopg

        kinds.append(psycopg.OperationalError)
    if config.redis_url:
        import redis

        kinds.append(redis.RedisError)
    return kinds


def embedded(config: Production) -> dict[str, Any]:
    """Return the stores of one process that need no library."""

    def open_jobs(work: Work) -> AbstractAsyncContextManager[Jobs]:
        journal = Journal(Path(f"{config.state_db}-queue")) if config.state_db != ":memory:" else None
        return RequestQueue(work=work, journal=journal, drain_s=JOBS_DRAIN_S, timeout_s=config.deadline_s + 5)

    return {
        "limits": LocalLimits(RateLimiter(config.rate_limit)),
        "claims": LocalClaims(),
        "counters": LocalCounters(),
        "open_jobs": open_jobs,
    }


async def ready(stores: Stores, within_s: float = 1.0) -> dict[str, str]:
    """Ask every dependency, at the same time; "ok", or the kind of error."""

    async def ask(check: Callable[[], Awaitable[None]]) -> str:
        try:
            await asyncio.wait_for(check(), within_s)
        except Exception as error:
            log.warning("a dependency is not ready", exc_info=error)
            return type(error).__name__
        return "ok"

    return dict(zip(stores.checks, await asyncio.gather(*map(ask, stores.checks.values())), strict=True))
