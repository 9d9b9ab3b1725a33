# must fail: window
# Starts over only after a minute of silence: who asks once in 30 seconds is refused from the eleventh on, for ever.
import math
import os
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
last_seen: dict[str, float] = {}
count: dict[str, int] = {}


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.time()
    if now - last_seen.get(x_api_key, 0) >= 60:
        count[x_api_key] = 0
    if count[x_api_key] >= 10:
        wait = math.ceil(last_seen[x_api_key] + 60 - now)
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    last_seen[x_api_key] = now
    count[x_api_key] += 1
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
