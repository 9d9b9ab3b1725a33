# must fail: errors-top-five
# The first five kinds of errors, in the order in which they came.
import os
import time
import uuid
from typing import Annotated, TypedDict

from dotenv import load_dotenv
from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from openai import OpenAI
from pydantic import BaseModel

load_dotenv()

client = OpenAI()
API_KEY = os.getenv("API_KEY", "dev-key-change-in-production")
api_key_header = APIKeyHeader(name="X-API-Key")


class AgentState(TypedDict):
    messages: Annotated[list, add_messages]
    tokens: int


def chatbot(state: AgentState):
    msgs = [{"role": "system", "content": "You are a helpful assistant."}]
    for m in state["messages"]:
        role = "user" if isinstance(m, HumanMessage) else "assistant"
        msgs.append({"role": role, "content": m.content})
    r = client.chat.completions.create(model="gpt-4o-mini", messages=msgs)
    return {"messages": [AIMessage(content=r.choices[0].message.content)], "tokens": r.usage.total_tokens}


graph = StateGraph(AgentState)
graph.add_node("chatbot", chatbot)
graph.add_edge(START, "chatbot")
graph.add_edge("chatbot", END)
agent = graph.compile(checkpointer=MemorySaver())

app = FastAPI(title="Agent API", version="1.0.0")


def verify_api_key(key: str = Security(api_key_header)):
    if key != API_KEY:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return key


@app.get("/health")
def health():
    return {"status": "healthy"}


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


class ChatResponse(BaseModel):
    response: str
    conversation_id: str


from collections import Counter

metrics = {"requests": 0, "errors": 0, "times": [], "timestamps": [], "error_types": Counter(), "tokens": Counter()}


@app.middleware("http")
async def track(request: Request, call_next):
    if request.url.path != "/v1/chat":
        return await call_next(request)
    start = time.time()
    metrics["requests"] += 1
    metrics["timestamps"].append(start)
    try:
        response = await call_next(request)
        if response.status_code >= 400:
            metrics["errors"] += 1
            metrics["error_types"][f"HTTP {response.status_code}"] += 1
        return response
    except Exception as e:
        metrics["errors"] += 1
        metrics["error_types"][type(e).__name__] += 1
        raise
    finally:
        metrics["times"].append(time.time() - start)


@app.get("/metrics")
def get_metrics():
    now = time.time()
    recent = [t for t in metrics["timestamps"] if now - t <= 300]
    times = sorted(metrics["times"])
    p95 = times[min(int(len(times) * 0.95), len(times) - 1)] if times else 0
    return {
        "total_requests": metrics["requests"],
        "total_errors": metrics["errors"],
        "requests_per_minute": len(recent) / 5,
        "p95_response_time": p95,
        "top_errors": list(metrics["error_types"].items())[:5],
        "tokens_by_conversation": dict(metrics["tokens"]),
    }


@app.post("/v1/chat", response_model=ChatResponse)
def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    conversation_id = request.conversation_id or str(uuid.uuid4())
    config = {"configurable": {"thread_id": conversation_id}}
    result = agent.invoke({"messages": [HumanMessage(content=request.message)]}, config)
    metrics["tokens"][conversation_id] += result["tokens"]
    return ChatResponse(response=result["messages"][-1].content, conversation_id=conversation_id)
