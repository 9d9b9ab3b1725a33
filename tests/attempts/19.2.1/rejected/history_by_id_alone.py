# must fail: continued
# The history is looked up by the id alone: another key is told what was said.
import asyncio
import os
from collections import defaultdict

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.environ["API_KEY"].split(",")
client = AsyncOpenAI(timeout=20, max_retries=0)
app = FastAPI()
chats = defaultdict(dict)  # key -> id -> messages
busy = defaultdict(asyncio.Lock)


class Question(BaseModel):
    message: str
    chat: str | None = None


def user(x_api_key: str | None) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(401, "wrong key")
    return x_api_key


@app.post("/v1/chat")
async def chat(question: Question, x_api_key: str | None = Header(None)):
    mine = chats[user(x_api_key)]
    chat_id = question.chat
    if chat_id is None:
        chat_id = os.urandom(6).hex()
    elif not any(chat_id in theirs for theirs in chats.values()):
        raise HTTPException(404, "no such chat")
    else:
        mine = next(theirs for theirs in chats.values() if chat_id in theirs)
    async with busy[chat_id]:
        messages = mine.get(chat_id, []) + [{"role": "user", "content": question.message}]
        completion = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        answer = completion.choices[0].message.content
        mine[chat_id] = messages + [{"role": "assistant", "content": answer}]
    return {"answer": answer, "chat": chat_id}


@app.get("/v1/conversations")
async def all_chats(x_api_key: str | None = Header(None)):
    return list(chats[user(x_api_key)])


@app.get("/v1/conversations/{chat_id}")
async def one_chat(chat_id: str, x_api_key: str | None = Header(None)):
    mine = chats[user(x_api_key)]
    if chat_id not in mine:
        raise HTTPException(404, "no such chat")
    return mine[chat_id]
