"""What many processes share in PostgreSQL: conversations, their index, costs, and the semantic cache (pgvector)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import psycopg
from exercise_1_19_2_solution import MAX_PER_OWNER, Conversation, Page, UnknownConversation
from exercise_2_19_6_solution import TTL_S, differ
from exercise_3_19_6_solution import SCHEMA, CostDashboard
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row, tuple_row
from psycopg_pool import AsyncConnectionPool

from production.settings import Production
from production.stores import Order, Stores
from question_guard import is_storable, normalise
from shared.agent import Turns

POOL = 10
TIMEOUT_S = 5.0  # for a connection from the pool, and for one statement
NO_ANSWER_S = TIMEOUT_S + 1  # then the connection is given up
CANDIDATES = 20  # near answers that the guard is shown
SETUP = 1919  # the lock under which one process at a time makes tables
INDEX = """
CREATE TABLE IF NOT EXISTS conversation_index (
    owner text, id text, number bigserial, created_at float8, last_turn_at float8, removed boolean DEFAULT false,
    PRIMARY KEY (owner, id));
CREATE INDEX IF NOT EXISTS conversation_pages ON conversation_index (owner, number);
"""
ANSWERS = """
CREATE TABLE IF NOT EXISTS answers (
    scope text, said text, message text, response text, embedding vector, expires_at float8,
    PRIMARY KEY (scope, said));
CREATE INDEX IF NOT EXISTS answers_that_end ON answers (expires_at);
"""
LOCK = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
UNLOCK = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"
Row = TypeVar("Row")
Pool = AsyncConnectionPool[psycopg.AsyncConnection[dict[str, Any]]]
log = logging.getLogger(__name__)


class NewestOnly(AsyncPostgresSaver):
    """LangGraph's PostgreSQL saver, one checkpoint per conversation: each holds the whole history."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint, then drop those before it."""
        saved = await super().aput(config, checkpoint, metadata, new_versions)
        thread = (config["configurable"]["thread_id"], config["configurable"]["checkpoint_ns"])
        versions = checkpoint["channel_versions"]
        kept = (list(versions), [str(version) for version in versions.values()])
        where = "WHERE thread_id = %s AND checkpoint_ns = %s"
        async with self._cursor(pipeline=True) as cursor:
            older = f"{where} AND checkpoint_id <> %s"
            await cursor.execute(f"DELETE FROM checkpoints {older}", (*thread, checkpoint["id"]))  # noqa: S608  (constants)
            await cursor.execute(f"DELETE FROM checkpoint_writes {older}", (*thread, checkpoint["id"]))  # noqa: S608  (constants)
            await cursor.execute(
                f"DELETE FROM checkpoint_blobs {where} AND (channel, version) NOT IN "  # noqa: S608  (constants)
                "(SELECT * FROM unnest(%s::text[], %s::text[]))",
                (*thread, *kept),
            )
        return saved


class PostgresIndex:
    """The index of exercise 1 in section 19.2 over all processes: the same pages, the same errors."""

    def __init__(
        self, pool: Pool, *, max_per_owner: int = MAX_PER_OWNER, clock: Callable[[], float] = time.time
    ) -> None:
        self._pool, self._max_per_owner, self._clock = pool, max_per_owner, clock

    async def record(self, owner: str, conversation_id: str) -> list[str]:
        """Note a finished turn; returns the ids that had to make room."""
        now = self._clock()
        inserted = await self._rows(
            """INSERT INTO conversation_index AS o (owner, id, created_at, last_turn_at) VALUES (%s, %s, %s, %s)
            ON CONFLICT (owner, id) DO UPDATE SET last_turn_at = excluded.last_turn_at, removed = false,
                number = CASE WHEN o.removed THEN excluded.number ELSE o.number END,
                created_at = CASE WHEN o.removed THEN excluded.created_at ELSE o.created_at END
            RETURNING last_turn_at = created_at AS is_new""",
            owner, conversation_id, now, now,
        )  # fmt: skip
        if not inserted[0]["is_new"]:
            return []
        idle = await self._rows(
            """UPDATE conversation_index SET removed = true WHERE owner = %s AND id IN (
                SELECT id FROM conversation_index WHERE owner = %s AND NOT removed
                ORDER BY last_turn_at DESC, number DESC OFFSET %s) RETURNING id""",
            owner, owner, self._max_per_owner,
        )  # fmt: skip
        return [row["id"] for row in idle]

    async def get(self, owner: str, conversation_id: str) -> Conversation:
        """Return one conversation; raises UnknownConversation."""
        rows = await self._rows(
            """SELECT id, number, created_at, last_turn_at FROM conversation_index
            WHERE owner = %s AND id = %s AND NOT removed""",
            owner, conversation_id,
        )  # fmt: skip
        if not rows:
            raise UnknownConversation(conversation_id)
        return Conversation(**rows[0])

    async def remove(self, owner: str, conversation_id: str) -> None:
        """Forget one conversation, but not where it stood; raises UnknownConversation."""
        gone = await self._rows(
            "UPDATE conversation_index SET removed = true WHERE owner = %s AND id = %s AND NOT removed RETURNING id",
            owner, conversation_id,
        )  # fmt: skip
        if not gone:
            raise UnknownConversation(conversation_id)

    async def page(self, owner: str, *, limit: int, after: str | None, order: Order) -> Page:
        """Return a part of the list; raises UnknownConversation for `after`."""
        descending = order == "desc"
        start: float = float("inf") if descending else 0
        if after is not None:
            rows = await self._rows("SELECT number FROM conversation_index WHERE owner = %s AND id = %s", owner, after)
            if not rows:
                raise UnknownConversation(after)
            start = rows[0]["number"]
        beyond, way = ("<", "DESC") if descending else (">", "ASC")
        rows = await self._rows(
            f"SELECT id FROM conversation_index WHERE owner = %s AND NOT removed AND number {beyond} %s "  # noqa: S608  (constants)
            f"ORDER BY number {way} LIMIT %s",
            owner, start, limit + 1,
        )  # fmt: skip
        return Page(tuple(row["id"] for row in rows[:limit]), has_more=len(rows) > limit)

    async def _rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        async with self._pool.connection() as db:
            return await (await db.execute(query, values)).fetchall()


class Impatient(psycopg.AsyncConnection[Row]):
    """A connection that breaks off when no answer comes: the statement's own timeout ends where the network hangs."""

    async def wait(self, *args: Any, **options: Any) -> Any:
        """Wait for PostgreSQL, `NO_ANSWER_S` at most; raises psycopg.OperationalError."""
        giving_up = asyncio.get_running_loop().call_later(NO_ANSWER_S, self._break_off)
        try:
            return await super().wait(*args, **options)
        finally:
            giving_up.cancel()

    def _break_off(self) -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)


class PostgresTurns:
    """Lets one turn at a time into a conversation, over all processes: advisory locks of one connection's session.

    A killed process loses its connection and so its locks; nothing has to expire. Who waits asks again, with jitter.
    """

    def __init__(self, url: str) -> None:
        self._url, self._local = url, Turns()
        self._db: psycopg.AsyncConnection[Any] | None = None
        self._connecting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def __call__(self, conversation_id: str) -> AsyncIterator[None]:
        async with self._local(conversation_id):
            pause = 0.005
            while not await self._lock(conversation_id):
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  (so that processes take turns)
                pause = min(0.1, pause * 2)
            try:
                yield
            finally:
                with contextlib.suppress(psycopg.OperationalError):  # gone with the connection, and the lock with it
                    await asyncio.shield(self._ask(UNLOCK, conversation_id))

    async def _lock(self, conversation_id: str) -> bool:
        """Ask for the lock; whoever is cancelled before the answer has come gives back what it brings."""
        asking = asyncio.create_task(self._ask(LOCK, conversation_id))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            with contextlib.suppress(psycopg.OperationalError):
                if await asking:
                    await self._ask(UNLOCK, conversation_id)
            raise

    async def _ask(self, query: Any, conversation_id: str) -> bool:
        async with self._connecting:
            if self._db is None or self._db.closed or self._db.broken:
                self._db = await connect(self._url)
            row = await (await self._db.execute(query, (conversation_id,))).fetchone()
        return bool(row and row[0])

    async def close(self) -> None:
        """Let go of the connection."""
        if self._db:
            await self._db.close()


async def connect(url: str) -> psycopg.AsyncConnection[Any]:
    """Connect with the timeouts of a request."""
    return await Impatient.connect(url, autocommit=True, row_factory=tuple_row, **options())


def options() -> dict[str, Any]:
    """Return what bounds every wait for PostgreSQL."""
    return {
        "connect_timeout": int(TIMEOUT_S),
        "options": f"-c statement_timeout={int(TIMEOUT_S * 1000)}",
        "tcp_user_timeout": int(TIMEOUT_S * 1000),
        "prepare_threshold": 2,
    }


class Engine:
    """A psycopg connection as CostDashboard speaks to sqlite3; one that broke is opened again at the next use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._db: psycopg.Connection[Any] | None = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            if self._db is None or self._db.closed or self._db.broken:
                self._db = psycopg.connect(self._url, autocommit=True, **options())
            yield self._db
        except psycopg.Error as error:
            raise sqlite3.OperationalError(f"PostgreSQL: {type(error).__name__}") from error

    def execute(self, query: str, values: Iterable[Any] = ()) -> Any:
        """Run one statement."""
        with self._errors() as db:
            return db.execute(query.replace("?", "%s"), tuple(values))

    def executemany(self, query: str, rows: list[tuple[Any, ...]]) -> None:
        """Run one statement for each row."""
        with self._errors() as db, db.cursor() as cursor:
            cursor.executemany(query.replace("?", "%s"), rows)

    def __enter__(self) -> None:
        self.execute("BEGIN")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.execute("ROLLBACK" if kind else "COMMIT")

    def close(self) -> None:
        """Let go of the connection."""
        if self._db:
            self._db.close()


class PostgresCosts(CostDashboard):
    """The dashboard of exercise 3 in section 19.6 over all processes.

    The month's total is read again with each flush, so a hard budget may be exceeded by what all processes spend
    within a second.
    """

    def _open(self, path: str) -> Any:
        engine = Engine(path)
        tables = SCHEMA.replace(" WITHOUT ROWID", "").replace("INTEGER", "BIGINT").replace("REAL", "DOUBLE PRECISION")
        while not engine.execute(f"SELECT pg_try_advisory_lock({SETUP})").fetchone()[0]:
            time.sleep(0.05)
        try:
            for statement in filter(str.strip, tables.split(";")):
                engine.execute(statement)
        finally:
            engine.execute(f"SELECT pg_advisory_unlock({SETUP})")
        return engine

    def flush(self) -> None:
        """Write what has been recorded since the last time, and read what the others have written."""
        with self._storage:
            super().flush()
            written = self._spent(None, self._month)
            with self._lock:
                self._month_nano = written + sum(nano for _, _, _, _, nano, _, _ in self._waiting)

    def _rows(self, query: str, *arguments: Any) -> list[Any]:
        """Return rows with whole numbers: sums come as Decimal."""
        rows = super()._rows(query, *arguments)
        return [tuple(int(v) if hasattr(v, "as_tuple") else v for v in row) for row in rows]


class PostgresAnswers:
    """Answers that all processes share, found by text or by pgvector and the guard of exercise 2 in section 19.6.

    Limit: it compares with all of one scope's answers that have not ended (no index over vectors): a caller's
    thousands, not millions.
    """

    def __init__(
        self, pool: Pool, threshold: float, *, ttl_s: float = TTL_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._pool, self._threshold, self._ttl_s, self._clock = pool, threshold, ttl_s, clock

    async def find(self, message: str, scope: str, vector: Any) -> str | None:
        """Return the answer to the same question, or to one that means the same."""
        now = self._clock()
        async with self._pool.connection() as db:
            query = "SELECT response FROM answers WHERE scope = %s AND said = %s AND expires_at > %s"
            row = await (await db.execute(query, (scope, normalise(message), now))).fetchone()
            if row:
                return str(row["response"])
            if vector is None:
                return None
            query = """SELECT message, response, 1 - (embedding <=> %s::vector) AS similarity FROM answers
                WHERE scope = %s AND expires_at > %s ORDER BY embedding <=> %s::vector LIMIT %s"""
            values = (as_text(vector), scope, now, as_text(vector), CANDIDATES)
            near = await (await db.execute(query, values)).fetchall()
        found = (
            r["response"] for r in near if r["similarity"] >= self._threshold and not differ(message, r["message"])
        )
        return next((str(response) for response in found), None)

    async def keep(self, message: str, response: str, scope: str, vector: Any) -> None:
        """Keep an answer that may be kept, and drop what has ended."""
        if vector is None or not is_storable(message, response):
            return
        now = self._clock()
        query = """INSERT INTO answers VALUES (%s, %s, %s, %s, %s::vector, %s) ON CONFLICT (scope, said) DO UPDATE SET
            response = excluded.response, embedding = excluded.embedding, expires_at = excluded.expires_at"""
        async with self._pool.connection() as db:
            values = (scope, normalise(message), message, response, as_text(vector), now + self._ttl_s)
            await db.execute(query, values)
            await db.execute("DELETE FROM answers WHERE expires_at <= %s", (now,))


def as_text(vector: Any) -> str:
    """Write a vector as pgvector reads it."""
    return "[" + ",".join(f"{float(value):.7g}" for value in vector) + "]"


@contextlib.asynccontextmanager
async def open_postgres(config: Production, rest: dict[str, Any]) -> AsyncIterator[Stores]:
    """Connect, make the tables that are missing, and close at the end; raises psycopg.OperationalError."""
    from exercise_2_19_6_solution import OfflineEmbedder, OpenAIEmbedder

    assert config.database_url
    url = config.database_url.get_secret_value()
    per_connection = {"autocommit": True, "row_factory": dict_row, **options()}
    pool: Pool = AsyncConnectionPool(
        url,
        connection_class=Impatient,
        min_size=1,
        max_size=POOL,
        kwargs=per_connection,
        open=False,
        timeout=TIMEOUT_S,
        reconnect_timeout=30,
    )
    turns, costs = PostgresTurns(url), None
    try:
        await (await connect(url)).close()  # fails at once, where the pool would be patient
        await pool.open(wait=True, timeout=TIMEOUT_S)
        saver = NewestOnly(pool)
        answers = await set_up(pool, saver)
        costs = await asyncio.to_thread(PostgresCosts, url, monthly_budget_usd=config.monthly_budget_usd)
        threshold = OfflineEmbedder.threshold if config.offline else OpenAIEmbedder.threshold

        async def check() -> None:
            async with pool.connection() as db:
                await db.execute("SELECT 1")

        yield Stores(
            index=PostgresIndex(pool),
            saver=saver,
            costs=costs,
            turn=turns,
            answers=PostgresAnswers(pool, threshold) if answers else None,
            checks={"postgres": check},
            **rest,
        )
    finally:
        with contextlib.suppress(sqlite3.OperationalError):  # logged when it could not be written
            if costs:
                await asyncio.to_thread(costs.close)
        await turns.close()
        await pool.close()


async def set_up(pool: Pool, saver: AsyncPostgresSaver) -> bool:
    """Make the tables, one process at a time; returns whether pgvector is there for the shared answers."""
    async with pool.connection() as db:
        # Asking again and again, since the saver makes an index concurrently: that waits for every statement under way,
        # and so for one that waits for this lock.
        ours: dict[str, Any] | None = None
        while not ours or not ours["got"]:
            await asyncio.sleep(0.05 if ours else 0)
            ours = await (await db.execute(f"SELECT pg_try_advisory_lock({SETUP}) AS got")).fetchone()
        try:
            await saver.setup()
            for statement in filter(str.strip, INDEX.split(";")):
                await db.execute(statement)
            try:
                await db.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                log.warning("no pgvector, so each process has a cache of its own (%s)", type(error).__name__)
                return False
            for statement in filter(str.strip, ANSWERS.split(";")):
                await db.execute(statement)
            return True
        finally:
            await db.execute(f"SELECT pg_advisory_unlock({SETUP})")
