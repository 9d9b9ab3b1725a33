# must fail: ten-allowed, eleventh-429
# Turns "ten a minute" into "at least six seconds apart": the second request of a burst is refused.
import math
import os
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
INTERVAL = 60 / 10

app = FastAPI()
client = AsyncOpenAI()
last_request: dict[str, float] = {}


class ChatRequest(BaseModel):
    message: str


async def pace(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.monotonic()
    if x_api_key in last_request and now - last_request[x_api_key] < INTERVAL:
        wait = math.ceil(last_request[x_api_key] + INTERVAL - now)
        raise HTTPException(status_code=429, detail="Not so fast", headers={"Retry-After": str(wait)})
    last_request[x_api_key] = now
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(pace)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
