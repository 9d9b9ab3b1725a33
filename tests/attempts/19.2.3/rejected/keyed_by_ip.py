# must fail: per-key
# Counts per client address: two keys behind one address share their ten requests.
import math
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob", "carol-key": "carol"}

app = FastAPI()
client = AsyncOpenAI()
seen: dict[str, list[float]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


def authenticate(x_api_key: str = Header(default="")) -> str:
    if x_api_key not in USERS:
        raise HTTPException(status_code=401, detail="Who are you?")
    return USERS[x_api_key]


async def rate_limit(request: Request, user: str = Depends(authenticate)) -> str:
    address = request.client.host
    now = time.monotonic()
    seen[address] = [t for t in seen[address] if now - t < 60]
    if len(seen[address]) >= 10:
        wait = math.ceil(60 - (now - seen[address][0]))
        raise HTTPException(429, f"Too many requests from {address}", headers={"Retry-After": str(wait)})
    seen[address].append(now)
    return user


@app.post("/v1/chat")
async def chat(body: ChatRequest, user: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    return {"response": completion.choices[0].message.content}
