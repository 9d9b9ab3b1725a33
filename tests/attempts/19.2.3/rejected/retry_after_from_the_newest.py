# must fail: retry-after-honest
# Waits for the newest request to leave the window; there is room as soon as the oldest has left.
import math
import time
from collections import defaultdict, deque

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob"}

app = FastAPI()
client = AsyncOpenAI()
times_of: dict[str, deque[float]] = defaultdict(deque)


class ChatRequest(BaseModel):
    message: str


async def user_within_limit(x_api_key: str = Header(default="")) -> str:
    if x_api_key not in USERS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    user = USERS[x_api_key]
    now = time.monotonic()
    times = times_of[user]
    while times and now - times[0] >= 60:
        times.popleft()
    if len(times) >= 10:
        wait = math.ceil(60 - (now - times[-1]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    times.append(now)
    return user


@app.post("/v1/chat")
async def chat(request: ChatRequest, user: str = Depends(user_within_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
