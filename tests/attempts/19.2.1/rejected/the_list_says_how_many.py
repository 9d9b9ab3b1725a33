# must fail: listed
# The list tells how many conversations there are, but no id that one could read them by.
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
    conversation_id = request.conversation_id or str(uuid.uuid4())
    if request.conversation_id and (key, conversation_id) not in conversations:
        raise HTTPException(404)
    earlier = conversations.get((key, conversation_id), [])
    asked = {"role": "user", "content": request.message}
    completion = await client.chat.completions.create(model="gpt-4o-mini", messages=[*earlier, asked])
    answer = {"role": "assistant", "content": completion.choices[0].message.content}
    conversations.setdefault((key, conversation_id), []).extend([asked, answer])
    return {"response": answer["content"], "conversation_id": conversation_id}


@app.get("/v1/conversations")
async def list_all(key=Depends(get_key)):
    return {"total": sum(owner == key for owner, _ in conversations)}


@app.get("/v1/conversations/{id}")
async def one(id: str, key=Depends(get_key)):
    if (key, id) not in conversations:
        raise HTTPException(404)
    return {"messages": conversations[key, id]}
