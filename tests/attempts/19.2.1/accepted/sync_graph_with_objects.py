# accepted: agent.invoke in worker threads, get_state(), a session_id in the body, a list of objects, roles as LangChain names them
import os
import threading
import uuid
from collections import defaultdict

from fastapi import FastAPI, Header, HTTPException
from langchain_core.messages import AIMessage, convert_to_openai_messages
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from openai import OpenAI
from pydantic import BaseModel


def model_node(state: MessagesState):
    completion = OpenAI().chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "system", "content": "You are a friendly assistant."}]
        + convert_to_openai_messages(state["messages"]),
    )
    return {"messages": [AIMessage(content=completion.choices[0].message.content)]}


builder = StateGraph(MessagesState)
builder.add_node("model", model_node)
builder.add_edge(START, "model")
builder.add_edge("model", END)
agent = builder.compile(checkpointer=MemorySaver())

app = FastAPI()
sessions: dict[str, dict[str, int]] = defaultdict(dict)
locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


class ChatRequest(BaseModel):
    message: str
    session_id: str | None = None


def user(x_api_key: str) -> str:
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(403, "Invalid API key")
    return x_api_key


def config(session_id: str):
    return {"configurable": {"thread_id": session_id}}


@app.post("/v1/chat")
def chat(request: ChatRequest, x_api_key: str = Header("")):
    who = user(x_api_key)
    if request.session_id and request.session_id not in sessions[who]:
        raise HTTPException(404, "Unknown session")
    session = request.session_id or str(uuid.uuid4())
    with locks[session]:
        result = agent.invoke({"messages": [("user", request.message)]}, config(session))
        sessions[who][session] = len(result["messages"])
    return {"response": result["messages"][-1].content, "session_id": session}


@app.get("/v1/conversations")
def conversations(x_api_key: str = Header("")):
    return {"conversations": [{"id": id, "message_count": n} for id, n in sessions[user(x_api_key)].items()]}


@app.get("/v1/conversations/{id}")
def conversation(id: str, x_api_key: str = Header("")):
    if id not in sessions[user(x_api_key)]:
        raise HTTPException(404, "Unknown session")
    state = agent.get_state(config(id))
    return {"id": id, "history": [{"type": m.type, "data": {"content": m.content}} for m in state.values["messages"]]}
