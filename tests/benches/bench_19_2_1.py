"""What a long conversation costs: bytes kept and time per turn, ours beside LangGraph's in-memory saver left alone.

A question of 80 and an answer of 400 characters per turn, from a node that answers at once: no SDK, no network.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from exercise_1_19_2_solution import Conversations
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

TURNS = (1, 10, 100, 400)
QUESTION, ANSWER = "q" * 80, "a" * 400
NEAR = 9  # the time of a turn is the median of the last so many


def run() -> list[tuple[str, str, str, str]]:
    """Talk for 400 turns with either saver; returns the rows."""
    ours, alone = asyncio.run(talk(compact=True)), asyncio.run(talk(compact=False))
    rows = []
    for turn in TURNS:
        text = turn * (len(QUESTION) + len(ANSWER))
        kept, all_of_it = ours[turn][0], alone[turn][0]
        rows.append((f"kept after {turn} turns", size(kept), size(all_of_it), f"{kept / text:.1f} x the text"))
    for turn in TURNS[1:]:
        ms, ms_alone = ours[turn][1] * 1e3, alone[turn][1] * 1e3
        ratio = ours[turn][1] / ours[TURNS[1]][1]
        rows.append((f"one turn, the {turn}th", f"{ms:.1f} ms", f"{ms_alone:.1f} ms", f"{ratio:.1f} x the 10th"))
    return rows


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


async def talk(*, compact: bool) -> dict[int, tuple[int, float]]:
    """Take the turns; returns bytes kept and seconds per turn at the points of interest."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(ANSWER)]}

    saver, conversations = InMemorySaver(), Conversations()
    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver)
    took: list[float] = []
    seen = {}
    for turn in range(1, max(TURNS) + 1):
        question: Any = {"messages": [HumanMessage(QUESTION)]}
        begun = time.perf_counter()
        if compact:
            async with conversations.turn(saver, "ann", "c") as thread_id:
                await graph.ainvoke(question, {"configurable": {"thread_id": thread_id}}, durability="exit")
        else:
            await graph.ainvoke(question, {"configurable": {"thread_id": "c"}}, durability="exit")
        took.append(time.perf_counter() - begun)
        if turn in TURNS:
            seen[turn] = held(saver), statistics.median(took[-NEAR:])
    return seen


def held(saver: InMemorySaver) -> int:
    """Return the bytes of the checkpoints and of the values that they refer to."""
    checkpoints = [part for ns in saver.storage.values() for found in ns.values() for c in found.values() for part in c]
    return sum(len(part[1]) for part in checkpoints if isinstance(part, tuple)) + sum(
        len(blob[1]) for blob in saver.blobs.values()
    )
