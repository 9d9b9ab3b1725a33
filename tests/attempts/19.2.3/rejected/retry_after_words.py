# must fail: retry-after
# Puts a unit into the header (Retry-After: 42 seconds).
import math
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob"}

app = FastAPI()
client = AsyncOpenAI()
key_header = APIKeyHeader(name="X-API-Key", auto_error=False)
log = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def get_user(key: str | None = Security(key_header)) -> str:
    if key not in USERS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return USERS[key]


async def rate_limit(user: str = Depends(get_user)) -> None:
    now = time.monotonic()
    log[user] = [t for t in log[user] if now - t < 60]
    if len(log[user]) >= 10:
        wait = math.ceil(60 - (now - log[user][0]))
        raise HTTPException(429, "Rate limit exceeded", headers={"Retry-After": f"{wait} seconds"})
    log[user].append(now)


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
