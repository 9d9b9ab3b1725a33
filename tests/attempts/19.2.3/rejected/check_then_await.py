# must fail: eleventh-429
# Awaits between reading the count and writing it back, without a lock: concurrent requests overwrite each other.
import asyncio
import math
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob"}


class Store:
    """Will be Redis one day, so everything is async."""

    def __init__(self):
        self.values = {}

    async def get(self, name):
        await asyncio.sleep(0.002)
        return list(self.values.get(name, []))

    async def put(self, name, value):
        await asyncio.sleep(0.002)
        self.values[name] = value


app = FastAPI()
client = AsyncOpenAI()
store = Store()


class ChatRequest(BaseModel):
    message: str


async def user_within_limit(x_api_key: str = Header(default="")) -> str:
    user = USERS.get(x_api_key)
    if user is None:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.monotonic()
    times = [t for t in await store.get(user) if now - t < 60]
    if len(times) >= 10:
        wait = math.ceil(60 - (now - times[0]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    await store.put(user, [*times, now])
    return user


@app.post("/v1/chat")
async def chat(request: ChatRequest, user: str = Depends(user_within_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"user": user, "response": completion.choices[0].message.content}
