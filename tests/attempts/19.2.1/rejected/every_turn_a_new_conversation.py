# must fail: messages
# The id that a client sends is not used: every message starts a conversation of its own.
import os
import uuid

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
conversations = {}


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


def get_key(x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, key=Depends(get_key)):
    messages = [{"role": "user", "content": request.message}]
    completion = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    messages.append({"role": "assistant", "content": completion.choices[0].message.content})
    conversation_id = str(uuid.uuid4())
    conversations[key, conversation_id] = messages
    return {"response": messages[-1]["content"], "conversation_id": conversation_id}


@app.get("/v1/conversations")
async def list_all(key=Depends(get_key)):
    return {"conversations": [id for owner, id in conversations if owner == key]}


@app.get("/v1/conversations/{id}")
async def one(id: str, key=Depends(get_key)):
    if (key, id) not in conversations:
        raise HTTPException(404)
    return {"messages": conversations[key, id]}
