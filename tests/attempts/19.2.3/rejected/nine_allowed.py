# must fail: ten-allowed, eleventh-429
# Appends first and then refuses from ten on, so the tenth request is refused (and of 30 at once nine pass).
import math
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob"}

app = FastAPI()
client = AsyncOpenAI()
log: dict[str, list[float]] = {user: [] for user in USERS.values()}


class ChatRequest(BaseModel):
    message: str


async def current_user(x_api_key: str = Header(default="")) -> str:
    if x_api_key not in USERS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return USERS[x_api_key]


async def rate_limit(user: str = Depends(current_user)) -> str:
    now = time.time()
    times = [t for t in log[user] if now - t < 60]
    times.append(now)
    if len(times) >= 10:
        wait = math.ceil(times[0] + 60 - now)
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    log[user] = times
    return user


@app.post("/v1/chat")
async def chat(request: ChatRequest, user: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content, "user": user}
