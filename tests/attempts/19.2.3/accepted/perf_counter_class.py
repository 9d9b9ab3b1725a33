# accepted: time.perf_counter in a class whose instance is the dependency (__call__); compares the whole API_KEY
import math
import os
import secrets
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

API_KEY = os.getenv("API_KEY", "dev-key-change-in-production")

app = FastAPI()
client = OpenAI()


class ChatRequest(BaseModel):
    message: str


class RateLimiter:
    def __init__(self, max_requests: int = 10, window_seconds: int = 60):
        self.max_requests = max_requests
        self.window_seconds = window_seconds
        self.clients: dict[str, list[float]] = {}

    def _clean(self, key: str, now: float) -> list[float]:
        fresh = [t for t in self.clients.get(key, []) if now - t < self.window_seconds]
        self.clients[key] = fresh
        return fresh

    def is_allowed(self, key: str) -> tuple[bool, int]:
        now = time.perf_counter()
        fresh = self._clean(key, now)
        if len(fresh) < self.max_requests:
            fresh.append(now)
            return True, 0
        return False, max(1, math.ceil(self.window_seconds - (now - min(fresh))))

    async def __call__(self, x_api_key: str = Header(default="")) -> None:
        if not secrets.compare_digest(x_api_key.encode(), API_KEY.encode()):
            raise HTTPException(status_code=401, detail="Invalid or missing API key")
        allowed, retry_after = self.is_allowed(x_api_key)
        if not allowed:
            raise HTTPException(
                status_code=429,
                detail="Too Many Requests",
                headers={"Retry-After": str(retry_after), "X-RateLimit-Remaining": "0"},
            )


rate_limiter = RateLimiter()


@app.post("/v1/chat", dependencies=[Depends(rate_limiter)])
def chat(request: ChatRequest):
    result = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": request.message}],
        temperature=0.2,
    )
    return {"response": result.choices[0].message.content}
