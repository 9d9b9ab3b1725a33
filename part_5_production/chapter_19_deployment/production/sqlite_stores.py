"""State in one SQLite file: LangGraph's saver, the index of conversations, the costs; the queue's is beside it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

from exercise_1_19_2_solution import Conversation, ConversationIndex
from exercise_3_19_6_solution import CostDashboard
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.sqlite import SqliteSaver

from production.settings import Production
from production.stores import LocalIndex, Stores

T = TypeVar("T")
SCHEMA = """CREATE TABLE IF NOT EXISTS conversation_index (
    owner TEXT, id TEXT, number INTEGER, created_at REAL, last_turn_at REAL, PRIMARY KEY (owner, id)) WITHOUT ROWID"""


class NewestOnly(SqliteSaver):
    """LangGraph's SQLite saver in a thread of its own, one checkpoint per conversation: each holds the whole history.

    Its asynchronous sibling goes to a thread for every statement, ten times a turn; this one goes twice. What has begun
    there ends there, also when its caller is cancelled.
    """

    def __init__(self, db: sqlite3.Connection, thread: Executor) -> None:
        super().__init__(db)
        self._thread = thread

    async def run(self, work: Callable[..., T], *values: Any) -> T:
        """Do something with the connection in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Read the newest checkpoint."""
        return await self.run(self.get_tuple, config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint, and drop those before it."""
        return await self.run(self.put, config, checkpoint, metadata, new_versions)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint, and drop those before it."""
        saved = super().put(config, checkpoint, metadata, new_versions)
        kept = (config["configurable"]["thread_id"], config["configurable"]["checkpoint_ns"], checkpoint["id"])
        where = "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id <> ?"
        with self.cursor() as cursor:
            cursor.execute(f"DELETE FROM checkpoints {where}", kept)  # noqa: S608  (both are constants)
            cursor.execute(f"DELETE FROM writes {where}", kept)  # noqa: S608  (both are constants)
        return saved

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Save what a step wrote before its checkpoint."""
        await self.run(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """Forget a conversation."""
        await self.run(self.delete_thread, thread_id)


class KeptIndex(ConversationIndex):
    """The index of exercise 1 in section 19.2, begun with what the file remembers."""

    def restore(self, rows: list[tuple[str, Conversation]]) -> None:
        """Take rows in the order of their numbers."""
        for owner, row in rows:
            self._kept[owner][row.id] = row
        newest = max((row.number for _, row in rows), default=0)
        while next(self._numbers) < newest:
            pass


@contextlib.asynccontextmanager
async def open_sqlite(config: Production, rest: dict[str, Any]) -> AsyncIterator[Stores]:
    """Open the file; everything but the saver writes through connections of its own."""
    costs = CostDashboard(config.state_db, monthly_budget_usd=config.monthly_budget_usd)
    try:
        with ThreadPoolExecutor(1, "sqlite") as thread, contextlib.ExitStack() as stack:
            loop = asyncio.get_running_loop()
            db = await loop.run_in_executor(thread, connect, config.state_db)
            stack.callback(db.close)
            saver, index = NewestOnly(db, thread), KeptIndex()

            def execute(query: str, *values: Any) -> list[Any]:
                with saver.cursor() as cursor:
                    return cursor.execute(query, values).fetchall()

            query = "SELECT owner, id, number, created_at, last_turn_at FROM conversation_index ORDER BY number"
            index.restore([(owner, Conversation(*row)) for owner, *row in await saver.run(execute, query)])

            async def save(owner: str, conversation_id: str, row: Conversation | None) -> None:
                if row is None:
                    query = "DELETE FROM conversation_index WHERE owner = ? AND id = ?"
                    await saver.run(execute, query, owner, conversation_id)
                else:
                    query = "INSERT OR REPLACE INTO conversation_index VALUES (?, ?, ?, ?, ?)"
                    await saver.run(execute, query, owner, row.id, row.number, row.created_at, row.last_turn_at)

            async def check() -> None:
                await saver.run(execute, "SELECT 1")

            yield Stores(
                index=LocalIndex(index, save),
                saver=saver,
                costs=costs,
                checks={"sqlite": check},
                **rest,
            )
    finally:
        await asyncio.to_thread(costs.close)


def connect(path: str) -> sqlite3.Connection:
    """Open the file, for one thread at a time; every statement commits, so that none leaves a transaction open."""
    db = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {SCHEMA}")
    return db
