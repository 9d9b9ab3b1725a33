# a class, one average for the five minutes, quantiles from the statistics module, /v1/metrics, exceptions counted
import asyncio
import os
import statistics
import time
from collections import deque

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel


class Stats:
    def __init__(self):
        self.lock = asyncio.Lock()
        self.seen = deque()
        self.errors = {}
        self.sessions = {}

    async def add(self, seconds, error=None):
        async with self.lock:
            self.seen.append((time.monotonic(), seconds))
            if error:
                self.errors[error] = self.errors.get(error, 0) + 1

    async def report(self):
        async with self.lock:
            while self.seen and time.monotonic() - self.seen[0][0] > 300:
                self.seen.popleft()
            durations = [seconds for _, seconds in self.seen]
            top = sorted(self.errors.items(), key=lambda item: item[1], reverse=True)[:5]
            return {
                "avg_requests_per_minute": round(len(self.seen) / 5, 2),
                "response_time_95th": statistics.quantiles(durations, n=20)[-1] if len(durations) > 1 else None,
                "common_errors": dict(top),
                "token_usage": self.sessions,
            }


stats = Stats()
client = AsyncOpenAI(max_retries=0)
app = FastAPI()
key_header = APIKeyHeader(name="X-API-Key")


class Chat(BaseModel):
    message: str
    session_id: str = "default"


async def check(key: str = Depends(key_header)):
    if key not in os.environ["API_KEY"].split(","):
        await stats.add(0, "wrong key")
        raise HTTPException(403)


@app.post("/v1/chat", dependencies=[Depends(check)])
async def chat(body: Chat):
    start = time.monotonic()
    try:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
    except Exception as error:
        await stats.add(time.monotonic() - start, type(error).__name__)
        return JSONResponse({"error": "the model is not available"}, 503)
    session = stats.sessions.setdefault(body.session_id, {"prompt": 0, "completion": 0})
    session["prompt"] += answer.usage.prompt_tokens
    session["completion"] += answer.usage.completion_tokens
    await stats.add(time.monotonic() - start)
    return {"answer": answer.choices[0].message.content, "session_id": body.session_id}


@app.get("/v1/metrics", dependencies=[Depends(check)])
async def metrics():
    return await stats.report()
