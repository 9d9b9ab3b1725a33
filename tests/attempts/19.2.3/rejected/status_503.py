# must fail: eleventh-429
# Refuses the eleventh request with 503 Service Unavailable, from a middleware.
import math
import os
import time

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
times_of = {}


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def rate_limiter(request: Request, call_next):
    if request.scope["path"] != "/v1/chat":
        return await call_next(request)
    key = request.headers.get("X-API-Key")
    if key not in KEYS:
        return JSONResponse({"error": "unauthorized"}, status_code=401)
    now = time.monotonic()
    times = [t for t in times_of.get(key, []) if now - t < 60]
    times_of[key] = times
    if len(times) >= 10:
        wait = math.ceil(60 - (now - times[0]))
        return JSONResponse({"error": "busy"}, status_code=503, headers={"Retry-After": str(wait)})
    times.append(now)
    return await call_next(request)


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
