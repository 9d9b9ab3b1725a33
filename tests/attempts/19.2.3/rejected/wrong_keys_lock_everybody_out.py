# must fail: auth-first
# Ten wrong keys in a minute close the door for all, so a stranger can shut out the holders of right ones.
import math
import os
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
requests: dict[str, list[float]] = defaultdict(list)
failed_logins: list[float] = []


class ChatRequest(BaseModel):
    message: str


def full(times: list[float], now: float) -> None:
    times[:] = [t for t in times if now - t < 60]
    if len(times) >= 10:
        wait = math.ceil(60 - (now - times[0]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})


async def rate_limit(x_api_key: str | None = Header(default=None)) -> str:
    now = time.time()
    full(failed_logins, now)  # somebody is guessing keys
    if x_api_key not in KEYS:
        failed_logins.append(now)
        raise HTTPException(status_code=401, detail="Invalid API key")
    full(requests[x_api_key], now)
    requests[x_api_key].append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
