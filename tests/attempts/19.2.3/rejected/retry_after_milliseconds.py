# must fail: retry-after-honest
# Counts in milliseconds and sends them as they are (Retry-After: 59800).
import os
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
WINDOW_MS = 60_000

app = FastAPI()
client = AsyncOpenAI()
stamps: dict[str, list[int]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def rate_limit(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = now_ms()
    stamps[x_api_key] = [stamp for stamp in stamps[x_api_key] if now - stamp < WINDOW_MS]
    if len(stamps[x_api_key]) >= 10:
        wait = stamps[x_api_key][0] + WINDOW_MS - now
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    stamps[x_api_key].append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
