# must fail: retry-after
# Subtracts the wrong way round: Retry-After: -59.
import os
import time
from collections import defaultdict, deque

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
times_by_key: dict[str, deque[float]] = defaultdict(deque)


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.monotonic()
    times = times_by_key[x_api_key]
    while times and now - times[0] >= 60:
        times.popleft()
    if len(times) >= 10:
        retry_after = int(now - times[0] - 60)
        raise HTTPException(429, "Too many requests", headers={"Retry-After": str(retry_after)})
    times.append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
