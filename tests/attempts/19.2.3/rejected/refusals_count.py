# must fail: window
# Writes refused requests down too: a client that keeps knocking is never let in again.
import math
import os
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
log: dict[str, list[float]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.time()
    times = [t for t in log[x_api_key] if now - t < 60]
    times.append(now)
    log[x_api_key] = times
    if len(times) > 10:
        wait = math.ceil(times[0] + 60 - now)
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
