# must fail: window
# Mixes up the two numbers: ten requests in ten seconds, so sixty in a minute.
import math
import os
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
MAX_REQUESTS = 10
WINDOW = 10

app = FastAPI()
client = AsyncOpenAI()
log = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.time()
    log[x_api_key] = [t for t in log[x_api_key] if now - t < WINDOW]
    if len(log[x_api_key]) >= MAX_REQUESTS:
        wait = math.ceil(log[x_api_key][0] + WINDOW - now)
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    log[x_api_key].append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(rate_limit)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
