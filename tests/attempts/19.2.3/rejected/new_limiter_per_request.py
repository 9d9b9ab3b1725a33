# must fail: eleventh-429
# The dependency builds a new RateLimiter for every request, so each one is the first.
import math
import os
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


class RateLimiter:
    def __init__(self, max_requests: int = 10, window: int = 60):
        self.max_requests = max_requests
        self.window = window
        self.requests: dict[str, list[float]] = {}

    def retry_after(self, key: str) -> int | None:
        now = time.time()
        times = self.requests.setdefault(key, [])
        times[:] = [t for t in times if now - t < self.window]
        if len(times) >= self.max_requests:
            return math.ceil(times[0] + self.window - now)
        times.append(now)
        return None


def get_limiter() -> RateLimiter:
    return RateLimiter()


@app.post("/v1/chat")
async def chat(
    request: ChatRequest,
    x_api_key: str | None = Header(default=None),
    limiter: RateLimiter = Depends(get_limiter),
):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    wait = limiter.retry_after(x_api_key)
    if wait is not None:
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
