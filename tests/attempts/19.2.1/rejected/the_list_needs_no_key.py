# must fail: list-own
# Whoever comes without a key is shown all ids.
import os
import threading
import uuid
from typing import Annotated, Optional, TypedDict

from dotenv import load_dotenv
from fastapi import Depends, FastAPI, HTTPException, Security
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


def chatbot(state: AgentState):
    msgs = [{"role": "system", "content": "You are a helpful assistant."}]
    for m in state["messages"]:
        role = "user" if isinstance(m, HumanMessage) else "assistant"
        msgs.append({"role": role, "content": m.content})
    r = client.chat.completions.create(model="gpt-4o-mini", messages=msgs)
    return {"messages": [AIMessage(content=r.choices[0].message.content)]}


graph = StateGraph(AgentState)
graph.add_node("chatbot", chatbot)
graph.add_edge(START, "chatbot")
graph.add_edge("chatbot", END)
agent = graph.compile(checkpointer=MemorySaver())

app = FastAPI(title="Agent API", version="1.0.0")

conversation_ids = set()
one_at_a_time = threading.Lock()


class ChatRequest(BaseModel):
    message: str
    conversation_id: Optional[str] = None


class ChatResponse(BaseModel):
    response: str
    conversation_id: str


def verify_api_key(key: str = Security(api_key_header)):
    if key != API_KEY:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return key


@app.get("/health")
def health():
    return {"status": "healthy"}


@app.post("/v1/chat", response_model=ChatResponse)
def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    conversation_id = request.conversation_id or str(uuid.uuid4())
    conversation_ids.add(conversation_id)
    config = {"configurable": {"thread_id": conversation_id}}
    with one_at_a_time:
        result = agent.invoke({"messages": [HumanMessage(content=request.message)]}, config)
    return ChatResponse(response=result["messages"][-1].content, conversation_id=conversation_id)


@app.get("/v1/conversations")
def list_conversations():
    return {"conversations": list(conversation_ids)}


@app.get("/v1/conversations/{id}")
def get_conversation(id: str, api_key: str = Depends(verify_api_key)):
    if id not in conversation_ids:
        raise HTTPException(status_code=404, detail="Conversation not found")
    state = agent.get_state({"configurable": {"thread_id": id}})
    messages = [{"role": m.type, "content": m.content} for m in state.values["messages"]]
    return {"conversation_id": id, "messages": messages}
