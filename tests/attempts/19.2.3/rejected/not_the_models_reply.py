# must fail: ten-allowed
# The first ten get 200, but with an answer from a cache that ignores what was asked, not with the model's reply.
import math
import os
import time
from collections import defaultdict, deque

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
times = defaultdict(deque)
cache = {}


class ChatRequest(BaseModel):
    message: str
    conversation_id: str = "default"


async def rate_limit(x_api_key: str = Header(default="")) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(401, "Invalid API key")
    now, mine = time.monotonic(), times[x_api_key]
    while mine and now - mine[0] >= 60:
        mine.popleft()
    if len(mine) >= 10:
        wait = math.ceil(60 - (now - mine[0]))
        raise HTTPException(429, "Rate limit exceeded", {"Retry-After": str(wait)})
    mine.append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, key: str = Depends(rate_limit)):
    if request.conversation_id not in cache:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
        )
        cache[request.conversation_id] = completion.choices[0].message.content
    return {"response": cache[request.conversation_id]}
