# must fail: retry-after-honest
# Always says 1, so a client that obeys comes back sixty times for nothing.
import os
import time

from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = OpenAI()
windows: dict[str, tuple[float, int]] = {}


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")

    now = time.time()
    start, count = windows.get(x_api_key, (now, 0))
    if now - start >= 60:
        start, count = now, 0
    if count >= 10:
        raise HTTPException(status_code=429, detail="Too Many Requests", headers={"Retry-After": "1"})
    windows[x_api_key] = (start, count + 1)

    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
