# cannot be judged: line 13 loads a .env over the environment (override=True), so the model is api.openai.com; blocked
# The file "dotenv" beside this one becomes ".env" when it is tried. Nothing may leave the machine.
import math
import os
import time
from collections import defaultdict

from dotenv import load_dotenv
from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

load_dotenv(override=True)

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
times_by_key = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.monotonic()
    times = times_by_key[x_api_key]
    times[:] = [t for t in times if now - t < 60]
    if len(times) >= 10:
        wait = math.ceil(60 - (now - times[0]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    times.append(now)


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
