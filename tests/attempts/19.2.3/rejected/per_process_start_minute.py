# must fail: window, retry-after-honest
# Counts are emptied only when the 11th comes a full hour after the first: seconds and minutes are mixed up.
import os
import time

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
counts = {}


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    started, count = counts.get(x_api_key, (time.time(), 0))
    minutes = (time.time() - started) / 60
    if minutes >= 60:
        started, count = time.time(), 0
    if count >= 10:
        raise HTTPException(429, "Too many requests", headers={"Retry-After": str(int(60 - minutes))})
    counts[x_api_key] = (started, count + 1)
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
