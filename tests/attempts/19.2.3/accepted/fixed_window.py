# accepted: a window that starts with a key's first request and then starts over (start and count, nothing else)
import math
import os
import time
from dataclasses import dataclass

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

API_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


@dataclass
class Window:
    started: float
    count: int = 0


app = FastAPI()
windows: dict[str, Window] = {}


class ChatRequest(BaseModel):
    message: str


class RateLimitExceeded(Exception):
    def __init__(self, seconds: int):
        self.seconds = seconds


def count_request(api_key: str) -> None:
    now = time.monotonic()
    window = windows.get(api_key)
    if window is None or now - window.started >= 60:
        window = windows[api_key] = Window(started=now)
    if window.count == 10:
        raise RateLimitExceeded(math.ceil(window.started + 60 - now))
    window.count += 1


@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str | None = Header(default=None)):
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    try:
        count_request(x_api_key)
    except RateLimitExceeded as error:
        raise HTTPException(
            status_code=429,
            detail=f"Rate limit exceeded, try again in {error.seconds} s",
            headers={"Retry-After": str(error.seconds)},
        ) from None
    async with AsyncOpenAI() as client:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
    return {"response": completion.choices[0].message.content}
