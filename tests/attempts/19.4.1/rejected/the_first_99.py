# must fail: first-100
# One character less than a hundred.
import os
import sys
import uuid
from typing import Annotated, Optional, TypedDict

from dotenv import load_dotenv
from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from openai import OpenAI
from pydantic import BaseModel, Field, field_validator
import time, json, logging
from fastapi.responses import JSONResponse

load_dotenv()

client = OpenAI()
API_KEY = os.getenv("API_KEY", "dev-key-change-in-production")
api_key_header = APIKeyHeader(name="X-API-Key")


class AgentState(TypedDict):
    messages: Annotated[list, add_messages]
    model: str
    tokens: int


def chatbot(state: AgentState):
    msgs = [{"role": "system", "content": "You are a helpful assistant."}]
    for m in state["messages"]:
        role = "user" if isinstance(m, HumanMessage) else "assistant"
        msgs.append({"role": role, "content": m.content})
    r = client.chat.completions.create(model="gpt-4o-mini", messages=msgs)
    return {"messages": [AIMessage(content=r.choices[0].message.content)], "model": r.model, "tokens": r.usage.total_tokens if r.usage else None}


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
    conversation_id: Optional[str] = None


class ChatResponse(BaseModel):
    response: str
    conversation_id: str


def log_json(level, event, **fields):
    sys.stdout.write(json.dumps({"timestamp": time.strftime("%Y-%m-%dT%H:%M:%S"), "level": level, "event": event, **fields}) + "\n")
    sys.stdout.flush()


@app.middleware("http")
async def log_requests(request: Request, call_next):
    request_id = str(uuid.uuid4())
    request.state.request_id = request_id
    start = time.time()
    log_json("INFO", "request_started", request_id=request_id, method=request.method, path=request.url.path)
    try:
        response = await call_next(request)
    except Exception as e:
        log_json("ERROR", "request_failed", request_id=request_id, error=str(e))
        return JSONResponse(status_code=500, content={"error": "Internal server error", "request_id": request_id})
    log_json("INFO", "request_finished", request_id=request_id, status=response.status_code, duration_ms=round((time.time() - start) * 1000))
    response.headers["X-Request-ID"] = request_id
    return response


@app.post("/v1/chat", response_model=ChatResponse)
def chat(body: ChatRequest, request: Request, api_key: str = Depends(verify_api_key)):
    conversation_id = body.conversation_id or str(uuid.uuid4())
    log_json("INFO", "chat_message", request_id=request.state.request_id, message=body.message[:99])
    config = {"configurable": {"thread_id": conversation_id}}
    result = agent.invoke({"messages": [HumanMessage(content=body.message)]}, config)
    log_json("INFO", "llm_response", request_id=request.state.request_id, model=result["model"], tokens=result["tokens"])
    return ChatResponse(response=result["messages"][-1].content, conversation_id=conversation_id)
