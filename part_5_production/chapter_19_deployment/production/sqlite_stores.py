"""State in one SQLite file: LangGraph's saver, the index of conversations, the costs; the queue's is beside it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiosqlite
from exercise_1_19_2_solution import Conversation, ConversationIndex
from exercise_3_19_6_solution import CostDashboard
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from production.settings import Production
from production.stores import LocalIndex, Stores

SCHEMA = """CREATE TABLE IF NOT EXISTS conversation_index (
    owner TEXT, id TEXT, number INTEGER, created_at REAL, last_turn_at REAL, PRIMARY KEY (owner, id)) WITHOUT ROWID"""


class NewestOnly(AsyncSqliteSaver):
    """LangGraph's SQLite saver, one checkpoint per conversation: each holds the whole history."""

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Save a checkpoint, then drop those before it."""
        saved = await super().aput(config, checkpoint, metadata, new_versions)
        kept = (config["configurable"]["thread_id"], config["configurable"]["checkpoint_ns"], checkpoint["id"])
        where = "WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id <> ?"
        async with self.lock:
            await self.conn.execute(f"DELETE FROM checkpoints {where}", kept)  # noqa: S608  (both are constants)
            await self.conn.execute(f"DELETE FROM writes {where}", kept)  # noqa: S608  (both are constants)
        return saved


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
        # isolation_level None: every statement commits. A turn cancelled between a statement and its commit would
        # otherwise leave a transaction open, and lock out everybody else.
        async with aiosqlite.connect(config.state_db, timeout=5.0, isolation_level=None) as db:
            await db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; {SCHEMA}")
            saver = NewestOnly(db)
            await saver.setup()
            index = KeptIndex()
            async with db.execute(
                "SELECT owner, id, number, created_at, last_turn_at FROM conversation_index ORDER BY number"
            ) as found:
                index.restore([(owner, Conversation(*row)) for owner, *row in await found.fetchall()])

            async def save(owner: str, conversation_id: str, row: Conversation | None) -> None:
                async with saver.lock:
                    if row is None:
                        query = "DELETE FROM conversation_index WHERE owner = ? AND id = ?"
                        await db.execute(query, (owner, conversation_id))
                    else:
                        query = "INSERT OR REPLACE INTO conversation_index VALUES (?, ?, ?, ?, ?)"
                        await db.execute(query, (owner, row.id, row.number, row.created_at, row.last_turn_at))

            async def check() -> None:
                await db.execute_fetchall("SELECT 1")

            yield Stores(
                index=LocalIndex(index, save),
                saver=saver,
                costs=costs,
                checks={"sqlite": check},
                **rest,
            )
    finally:
        await asyncio.to_thread(costs.close)
