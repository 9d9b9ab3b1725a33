"""What production/ is measured beside: the same agent served bare. FastAPI, LangGraph, memory, one reused client.

FAST=1 asks the model over aiohttp and writes one checkpoint a turn, as production/ does.
"""

from __future__ import annotations

import gc
import os
import uuid

from fastapi import FastAPI
from langchain_core.runnables import RunnableConfig
from langgraph.types import Durability
from openai import AsyncOpenAI
from pydantic import BaseModel

from production.transport import over_aiohttp
from shared.agent import build_agent


class Asked(BaseModel):
    """The body."""

    message: str
    conversation_id: str | None = None


def create_app() -> FastAPI:
    """Make the app; the model is at OPENAI_BASE_URL."""
    app = FastAPI()
    client = AsyncOpenAI(api_key="sk-test", base_url=os.environ["OPENAI_BASE_URL"])
    fast = os.environ.get("FAST") == "1"
    if fast:
        client = over_aiohttp(client)
        gc.freeze()
    graph = build_agent(client)

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/v1/chat")
    async def chat(body: Asked) -> dict[str, str]:
        thread = body.conversation_id or uuid.uuid4().hex
        options = {"thread_id": thread, "model": None, "streaming": False}
        durability: Durability = "exit" if fast else "async"  # the latter is LangGraph's own default
        run: RunnableConfig = {"configurable": options}
        state = await graph.ainvoke({"question": body.message}, run, durability=durability)
        return {"response": str(state["messages"][-1].content), "conversation_id": thread}

    return app
