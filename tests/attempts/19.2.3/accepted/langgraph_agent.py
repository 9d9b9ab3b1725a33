# accepted: a LangGraph agent answers, one thread per conversation; the limit is an exception that a handler makes a 429
import math
import os
import time
import uuid
from collections import defaultdict
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from openai import AsyncOpenAI
from pydantic import BaseModel

client = AsyncOpenAI()
ROLES = {"human": "user", "ai": "assistant"}


class State(TypedDict):
    messages: Annotated[list, add_messages]


async def answer(state: State) -> dict:
    history = [{"role": ROLES[m.type], "content": m.content} for m in state["messages"]]
    completion = await client.chat.completions.create(model="gpt-4o-mini", messages=history)
    return {"messages": [{"role": "assistant", "content": completion.choices[0].message.content}]}


graph = StateGraph(State)
graph.add_node("answer", answer)
graph.add_edge(START, "answer")
graph.add_edge("answer", END)
agent = graph.compile(checkpointer=MemorySaver())

app = FastAPI()
valid_keys = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
hits: dict[str, list[float]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


class TooManyRequests(Exception):
    def __init__(self, wait: float):
        self.retry_after = max(1, math.ceil(wait))


@app.exception_handler(TooManyRequests)
async def too_many(request: Request, exc: TooManyRequests):
    return JSONResponse({"detail": "Too many requests"}, 429, {"Retry-After": str(exc.retry_after)})


async def rate_limited_key(x_api_key: str | None = Header(None)) -> str:
    if x_api_key not in valid_keys:
        raise HTTPException(401, "Invalid API key")
    now = time.time()
    hits[x_api_key] = [hit for hit in hits[x_api_key] if hit > now - 60.0]
    if len(hits[x_api_key]) >= 10:
        raise TooManyRequests(hits[x_api_key][0] + 60.0 - now)
    hits[x_api_key].append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(body: ChatRequest, key: str = Depends(rate_limited_key)):
    conversation_id = body.conversation_id or str(uuid.uuid4())
    config = {"configurable": {"thread_id": f"{key}:{conversation_id}"}}
    result = await agent.ainvoke({"messages": [{"role": "user", "content": body.message}]}, config)
    return {"response": result["messages"][-1].content, "conversation_id": conversation_id}
