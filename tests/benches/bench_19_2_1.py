"""What a long conversation costs: bytes kept and time per turn, ours beside LangGraph's in-memory saver left alone.

A question of 80 and an answer of 400 characters per turn, from a node that answers at once: no SDK, no network.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass
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
        kept, all_of_it = ours[turn].bytes, alone[turn].bytes
        target = ", at most 3" if turn == TURNS[-1] else ""
        rows.append((f"kept after {turn} turns", size(kept), size(all_of_it), f"{kept / text:.1f} x the text{target}"))
    tenth = ours[TURNS[1]]
    for turn in TURNS[1:]:
        own, theirs = ours[turn], alone[turn]
        ratio = f"{own.turn_s / tenth.turn_s:.1f} x the 10th"  # LangGraph reads the whole history: it has to grow
        rows.append((f"one turn, the {turn}th", ms(own.turn_s), ms(theirs.turn_s), ratio))
        ratio = f"{own.added_s / tenth.added_s:.1f} x the 10th, at most 2"
        rows.append((f"of that, keeping index and saver, the {turn}th", ms(own.added_s), "-", ratio))
    return rows


def ms(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds * 1e3:.2f} ms"


def size(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


@dataclass(frozen=True)
class Seen:
    """What a conversation holds, what a turn takes, and how much of that is not the graph's."""

    bytes: int
    turn_s: float
    added_s: float


async def talk(*, compact: bool) -> dict[int, Seen]:
    """Take the turns; returns what was seen at the points of interest."""

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(ANSWER)]}

    saver, conversations = InMemorySaver(), Conversations()
    graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver)
    took: list[float] = []
    added: list[float] = []
    seen = {}
    for turn in range(1, max(TURNS) + 1):
        question: Any = {"messages": [HumanMessage(QUESTION)]}
        begun = time.perf_counter()
        async with conversations.turn(saver, "ann", "c") if compact else contextlib.nullcontext("c") as thread_id:
            entered = time.perf_counter()
            await graph.ainvoke(question, {"configurable": {"thread_id": thread_id}}, durability="exit")
            left = time.perf_counter()
        took.append(time.perf_counter() - begun)
        added.append(took[-1] - (left - entered))
        if turn in TURNS:
            seen[turn] = Seen(held(saver), statistics.median(took[-NEAR:]), statistics.median(added[-NEAR:]))
    return seen


def held(saver: InMemorySaver) -> int:
    """Return the bytes of the checkpoints and of the values that they refer to."""
    checkpoints = [part for ns in saver.storage.values() for found in ns.values() for c in found.values() for part in c]
    return sum(len(part[1]) for part in checkpoints if isinstance(part, tuple)) + sum(
        len(blob[1]) for blob in saver.blobs.values()
    )
