# must fail: eleventh-429
# Raises an exception of its own that no handler turns into a response: the eleventh request gets 500.
import os
import time
from collections import defaultdict, deque

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


class RateLimitExceeded(Exception):
    status_code = 429

    def __init__(self, retry_after: float):
        super().__init__(f"Rate limit exceeded, retry after {retry_after:.0f} s")
        self.headers = {"Retry-After": str(round(retry_after))}


class RateLimiter:
    def __init__(self):
        self.requests = defaultdict(deque)

    def check(self, key: str) -> None:
        now = time.time()
        requests = self.requests[key]
        while requests and now - requests[0] >= 60:
            requests.popleft()
        if len(requests) >= 10:
            raise RateLimitExceeded(60 - (now - requests[0]))
        requests.append(now)


limiter = RateLimiter()


async def verify(x_api_key: str | None = Header(default=None)) -> None:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    limiter.check(x_api_key)


@app.post("/v1/chat", dependencies=[Depends(verify)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
