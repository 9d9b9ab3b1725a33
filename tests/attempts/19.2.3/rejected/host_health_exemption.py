# must fail: host
# Exempts addresses that contain "/health", and builds the address from the Host header, which the client chooses.
import math
import os
import time

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
FREE = ("/health", "/docs", "/openapi.json")

app = FastAPI()
client = AsyncOpenAI()
times_by_key: dict[str, list[float]] = {}


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def limit(request: Request, call_next):
    address = f"http://{request.headers.get('host', 'localhost')}{request.scope['path']}"
    key = request.headers.get("X-API-Key")
    if not any(path in address for path in FREE):
        if key not in KEYS:
            return JSONResponse({"detail": "Invalid API key"}, status_code=401)
        now = time.time()
        times = [t for t in times_by_key.get(key, []) if now - t < 60]
        times_by_key[key] = times
        if len(times) >= 10:
            wait = math.ceil(60 - (now - times[0]))
            return JSONResponse({"detail": "Too many requests"}, 429, {"Retry-After": str(wait)})
        times.append(now)
    return await call_next(request)


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
