# accepted: a background task empties all counters once a minute (asyncio.sleep), so the timer must see the clock move
import asyncio
import math
import os
from collections import Counter
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

counters: Counter[str] = Counter()
next_reset = 0.0


async def reset_every_minute():
    global next_reset
    loop = asyncio.get_running_loop()
    while True:
        counters.clear()
        next_reset = loop.time() + 60
        await asyncio.sleep(60)


@asynccontextmanager
async def lifespan(app: FastAPI):
    task = asyncio.create_task(reset_every_minute())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


app = FastAPI(lifespan=lifespan)
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


async def take_one(x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    if counters[x_api_key] >= 10:
        seconds = max(1, math.ceil(next_reset - asyncio.get_running_loop().time()))
        raise HTTPException(status_code=429, detail="Come back soon", headers={"Retry-After": str(seconds)})
    counters[x_api_key] += 1


@app.post("/v1/chat", dependencies=[Depends(take_one)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": request.message}],
    )
    return {"response": completion.choices[0].message.content}
