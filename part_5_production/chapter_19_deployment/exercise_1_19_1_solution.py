"""Exercise 1 (19.1): put an agent into a container: facts on a topic, then a summary of them.

The book asks for a Dockerfile for an agent of yours. The agent is this file: two LangGraph nodes, facts and summary,
useful as a command and as a service. exercise_1_Dockerfile builds its image from exercise_1_requirements.txt. Notice:

* The image holds the program and its packages, and nothing that differs between two places: key, port and host come
  from the environment when it starts. So one image serves everywhere, and no layer of it holds a secret.
* `docker run` ends in SIGTERM to process 1. The exec form makes this program that process; a shell would swallow it.
* With --serve it never falls back to the stand-in model: without a key it refuses to start, and says what to do.

Run it:    python exercise_1_19_1_solution.py "renewable energy"      (--serve: the same as POST /v1/chat)
In Docker, from the repository's root:
           docker build -f part_5_production/chapter_19_deployment/exercise_1_Dockerfile -t research .
           docker run --rm -e OFFLINE=1 research "renewable energy"
           docker run --rm -e OPENAI_API_KEY -p 127.0.0.1:8000:8000 research
Check it:  make check EX=19.1.1                                      (MINE=your_folder checks yours)

Limit: the facts are what the model remembers; nothing looks them up.
"""

import argparse
import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypedDict

from fastapi import FastAPI, Request

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import Agent, ModelError, complete, open_agent
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings, SettingsError

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph
    from openai import AsyncOpenAI

__all__ = ["Research", "as_items", "build_research_graph", "report"]

FACTS = 3
TOPIC_CHARS = 200
EXAMPLE = "renewable energy"


class Research(TypedDict, total=False):
    """The graph's state: `topic` comes in, the first node adds `facts`, the second `summary`."""

    topic: str
    facts: list[str]
    summary: str


def build_research_graph(
    think: Callable[[str, str], Awaitable[str]], *, facts: int = FACTS
) -> "CompiledStateGraph[Any, Any, Any, Any]":
    """Compile the agent; `think(task, material)` asks a model and returns its words.

    The second node sees the first one's facts and not its prompt: each node can be tested, and replaced, by itself.
    """
    from langgraph.graph import START, StateGraph

    async def find_facts(state: Research) -> Research:
        task = f"List {facts} facts about the topic, one a line, numbered, without an introduction."
        return {"facts": as_items(await think(task, f"{facts} facts about {state['topic']}"))[:facts]}

    async def summarize(state: Research) -> Research:
        task = "Summarize the notes in one or two sentences. Add nothing that they do not say."
        return {"summary": await think(task, "\n".join(state["facts"]))}

    graph = StateGraph(Research).add_sequence([find_facts, summarize])
    return graph.add_edge(START, "find_facts").compile()


def as_items(text: str) -> list[str]:
    """Read a list as models write it: numbered or with dashes, a line each or all in one; prose is one item.

    What stands before a number one is an introduction, and left out.
    """
    if numbered := re.search(r"(?:^|\s)1[.)]\s", text):
        text = text[numbered.start() :]
    items = re.split(r"(?:^|\s)\d{1,2}[.)]\s|(?m:^\s*[-*]\s)|\n", text)
    return [item.strip() for item in items if item.strip()]


def report(found: Research) -> str:
    """Return what was found, to be read."""
    facts = "\n".join(f"{number}. {fact}" for number, fact in enumerate(found["facts"], 1))
    return f"{facts}\n\n{found['summary']}"


def build(client: "AsyncOpenAI", *, model: str) -> "CompiledStateGraph[Any, Any, Any, Any]":
    """Wire the graph to the model, one call a node."""

    async def think(task: str, material: str) -> str:
        messages = [{"role": "system", "content": task}, {"role": "user", "content": material}]
        return str((await complete(client, model, messages)).content)

    return build_research_graph(think)


async def research(agent: Agent, topic: str) -> str:
    """Run the graph once; raises ModelError."""
    graph = await agent.graph()
    found: Any = await graph.ainvoke({"topic": topic})
    return report(found)


def create_app(settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None) -> FastAPI:
    """Serve the agent at the book's path: the message is the topic, the response facts and summary."""
    app = base_app(settings, client, build=build)

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        found = await unless_gone(request, research(request.app.state.agent, body.message))
        return ChatResponse(response=found, conversation_id=body.conversation_id or uuid.uuid4().hex)

    return app


async def investigate(topic: str, settings: Settings) -> str:
    """Research one topic in this process."""
    async with open_agent(settings, build=build) as agent:
        return await research(agent, topic)


def main(argv: list[str] | None = None) -> int:
    """Research a topic and print what was found, or serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("topic", nargs="*", default=[EXAMPLE], help=f"what to look into (default: {EXAMPLE})")
    parser.add_argument("--serve", action="store_true", help="serve POST /v1/chat on HOST and PORT; needs a key")
    args = parser.parse_args(argv)
    topic = " ".join(args.topic)
    if not 0 < len(topic.strip()) <= TOPIC_CHARS:
        parser.exit(2, f"give a topic of 1 to {TOPIC_CHARS} characters\n")
    try:
        settings = Settings.load(demo=not args.serve)
    except SettingsError as error:
        parser.exit(2, f"{error}\n")
    demo.say((__doc__ or "").splitlines()[0])
    demo.say(demo.which_model(settings))
    if args.serve:
        demo.serve(create_app(settings), settings)
        return 0
    demo.say(f"\n{topic}")
    try:
        found = asyncio.run(investigate(topic, settings))
    except ModelError as error:
        parser.exit(1, f"{error}\n")
    for line in found.splitlines():
        demo.say(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
