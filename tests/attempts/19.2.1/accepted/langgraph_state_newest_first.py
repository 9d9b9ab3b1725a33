# LangGraph's state read with get_state(), shown newest first as turns; details in the list; 403 for a foreign id in
# the chat; a conversation that is busy answers 409.
import os
import time
import uuid
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from langchain_core.messages import AIMessage, HumanMessage, convert_to_openai_messages
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from openai import AsyncOpenAI
from pydantic import BaseModel

client = AsyncOpenAI(timeout=20, max_retries=0)
KEYS = os.environ["API_KEY"].split(",")


async def answer(state: MessagesState):
    history = convert_to_openai_messages(state["messages"])
    completion = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "system", "content": "You are kind."}, *history]
    )
    return {"messages": [AIMessage(completion.choices[0].message.content)]}


agent = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile(checkpointer=InMemorySaver())
app = FastAPI()
owners: dict[str, dict] = {}
running: set[str] = set()


def api_key(key: Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))]) -> str:
    if key not in KEYS:
        raise HTTPException(403, "who are you?")
    return key


class Body(BaseModel):
    message: str
    thread_id: str | None = None


@app.post("/v1/chat")
async def chat(body: Body, key: Annotated[str, Depends(api_key)]) -> dict:
    thread_id = body.thread_id or str(uuid.uuid4())
    if body.thread_id and owners.get(thread_id, {}).get("owner") != key:
        raise HTTPException(403, "not yours")
    if thread_id in running:
        raise HTTPException(409, "one turn at a time, please")
    running.add(thread_id)
    try:
        state = await agent.ainvoke(
            {"messages": [HumanMessage(body.message)]}, {"configurable": {"thread_id": thread_id}}
        )
    except Exception as error:
        raise HTTPException(502, "the model failed") from error
    finally:
        running.discard(thread_id)
    owners.setdefault(thread_id, {"owner": key, "since": time.time()})["last"] = time.time()
    return {"thread_id": thread_id, "reply": state["messages"][-1].content}


@app.get("/v1/conversations")
def conversations(key: Annotated[str, Depends(api_key)]) -> dict:
    mine = [{"id": id, "since": o["since"], "last": o["last"]} for id, o in owners.items() if o["owner"] == key]
    return {"total": len(mine), "items": mine}


@app.get("/v1/conversations/{thread_id}")
def conversation(thread_id: str, key: Annotated[str, Depends(api_key)]) -> dict:
    if owners.get(thread_id, {}).get("owner") != key:
        raise HTTPException(404, f"there is no conversation {thread_id}")
    messages = agent.get_state({"configurable": {"thread_id": thread_id}}).values["messages"]
    shown = [{"type": m.type, "text": m.content, "id": m.id} for m in messages]
    return {"thread": thread_id, "history": shown[::-1]}
