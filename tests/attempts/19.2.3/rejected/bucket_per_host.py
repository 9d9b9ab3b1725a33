# must fail: host
# Counts per host name and key; the client chooses the Host header, and every new one brings ten more requests.
import math
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob"}

app = FastAPI()
client = AsyncOpenAI()
buckets: dict[tuple[str, str], list[float]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def rate_limit(request: Request) -> str:
    user = USERS.get(request.headers.get("x-api-key", ""))
    if user is None:
        raise HTTPException(status_code=401, detail="Invalid API key")
    bucket = buckets[request.headers.get("host", ""), user]  # one service, several domains
    now = time.monotonic()
    bucket[:] = [t for t in bucket if now - t < 60]
    if len(bucket) >= 10:
        wait = math.ceil(60 - (now - bucket[0]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    bucket.append(now)
    return user


@app.post("/v1/chat")
async def chat(body: ChatRequest, user: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    return {"response": completion.choices[0].message.content}
