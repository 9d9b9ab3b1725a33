# accepted: time.monotonic and a deque per key, in an async dependency that follows the key check
import math
import os
import time
from collections import defaultdict, deque

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

API_KEYS = {key.strip() for key in os.getenv("API_KEY", "dev-key-change-in-production").split(",")}
MAX_REQUESTS = 10
WINDOW_SECONDS = 60

app = FastAPI(title="Chat with a rate limit")
client = AsyncOpenAI()
request_times: dict[str, deque[float]] = defaultdict(deque)


class ChatRequest(BaseModel):
    message: str


class ChatResponse(BaseModel):
    response: str


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


async def check_rate_limit(api_key: str = Depends(verify_api_key)) -> str:
    now = time.monotonic()
    times = request_times[api_key]
    while times and now - times[0] >= WINDOW_SECONDS:
        times.popleft()
    if len(times) >= MAX_REQUESTS:
        retry_after = math.ceil(times[0] + WINDOW_SECONDS - now)
        raise HTTPException(
            status_code=429,
            detail=f"Rate limit exceeded. Try again in {retry_after} seconds.",
            headers={"Retry-After": str(retry_after)},
        )
    times.append(now)
    return api_key


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.post("/v1/chat", response_model=ChatResponse)
async def chat(request: ChatRequest, api_key: str = Depends(check_rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": request.message}],
    )
    return ChatResponse(response=completion.choices[0].message.content)
