# must fail: eleventh-429
# Counts requests that are running at the moment, not requests per minute: one after another, any number passes.
import os
from collections import Counter

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
active: Counter[str] = Counter()


class ChatRequest(BaseModel):
    message: str


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    if active[api_key] >= 10:
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": "1"})
    active[api_key] += 1
    try:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
        )
        return {"response": completion.choices[0].message.content}
    finally:
        active[api_key] -= 1
