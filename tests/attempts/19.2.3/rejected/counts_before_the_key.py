# must fail: per-key, auth-first
# One limit for the whole service, counted before the key is looked at: wrong keys use up everybody's minute.
import math
import os
import time
from collections import deque

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
recent: deque[float] = deque()


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def rate_limit(request: Request, call_next):
    if request.method != "POST":
        return await call_next(request)
    now = time.monotonic()
    while recent and now - recent[0] >= 60:
        recent.popleft()
    if len(recent) >= 10:
        wait = math.ceil(60 - (now - recent[0]))
        return JSONResponse({"detail": "Too many requests"}, status_code=429, headers={"Retry-After": str(wait)})
    recent.append(now)
    return await call_next(request)


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> None:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")


@app.post("/v1/chat", dependencies=[Depends(verify_api_key)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
