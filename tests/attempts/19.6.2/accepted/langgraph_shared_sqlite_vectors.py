# Vectors as JSON in SQLite, the agent in LangGraph, async embeddings, one cache for everybody.
import json
import math
import os
import sqlite3

from fastapi import Depends, FastAPI, Header, HTTPException
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
db = sqlite3.connect(":memory:", check_same_thread=False)
db.execute("CREATE TABLE cache (message TEXT PRIMARY KEY, vector TEXT, answer TEXT)")
MINIMUM = 0.6


class Message(BaseModel):
    message: str
    user: str = "anonymous"


async def call_model(state: MessagesState):
    result = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": state["messages"][-1].content}]
    )
    return {"messages": [AIMessage(result.choices[0].message.content)]}


graph = StateGraph(MessagesState).add_node("model", call_model).add_edge(START, "model").compile()


def key(x_api_key: str = Header()):
    if x_api_key not in os.environ.get("API_KEY", "dev-key").split(","):
        raise HTTPException(401, "bad key")


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b))
    return dot / (math.hypot(*a) * math.hypot(*b))


@app.post("/v1/chat", dependencies=[Depends(key)])
async def chat(m: Message):
    row = db.execute("SELECT answer FROM cache WHERE message = ?", (m.message,)).fetchone()
    if row:
        return {"response": row[0], "similarity": 1.0}
    response = await client.embeddings.create(model="text-embedding-3-small", input=[m.message], dimensions=1536)
    vector = response.data[0].embedding
    best = max(
        ((cosine(vector, json.loads(v)), a) for v, a in db.execute("SELECT vector, answer FROM cache")),
        default=(0.0, ""),
    )
    if best[0] > MINIMUM:
        return {"response": best[1], "similarity": best[0]}
    state = await graph.ainvoke({"messages": [HumanMessage(m.message)]})
    answer = state["messages"][-1].content
    db.execute("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", (m.message, json.dumps(vector), answer))
    return {"response": answer, "similarity": None}
