# must fail: retry-after
# Sends a number with a fraction (Retry-After: 12.3); the header takes whole seconds or a date.
import os
import time

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
history: dict[str, list[float]] = {}


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def limit(request: Request, call_next):
    if not request.scope["path"].startswith("/v1/"):
        return await call_next(request)
    key = request.headers.get("X-API-Key", "")
    if key not in KEYS:
        return JSONResponse({"detail": "Invalid API key"}, status_code=401)
    now = time.time()
    recent = [t for t in history.get(key, []) if t + 60 > now]
    history[key] = recent
    if len(recent) >= 10:
        wait = max(recent[0] + 60 - now, 1.0)
        return JSONResponse(
            {"detail": f"Too many requests, wait {wait:.1f} seconds"},
            status_code=429,
            headers={"Retry-After": f"{wait:.1f}"},
        )
    recent.append(now)
    return await call_next(request)


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
