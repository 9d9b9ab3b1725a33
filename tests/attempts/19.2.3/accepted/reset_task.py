# accepted: a background task empties the counters at every full minute (asyncio.sleep), so timers must follow the clock
import asyncio
import math
import os
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

counters: Counter[str] = Counter()


def seconds_to_full_minute() -> float:
    return 60 - time.time() % 60


async def reset_every_full_minute():
    while True:
        await asyncio.sleep(seconds_to_full_minute())
        counters.clear()


@asynccontextmanager
async def lifespan(app: FastAPI):
    task = asyncio.create_task(reset_every_full_minute())
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
        wait = math.ceil(seconds_to_full_minute())
        raise HTTPException(status_code=429, detail="Come back soon", headers={"Retry-After": str(wait)})
    counters[x_api_key] += 1


@app.post("/v1/chat", dependencies=[Depends(take_one)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": request.message}],
    )
    return {"response": completion.choices[0].message.content}
