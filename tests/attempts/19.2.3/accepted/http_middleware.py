# accepted: @app.middleware("http") that checks the key and counts with time.time, and answers with a JSONResponse
import os
import time

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = {k for k in os.getenv("API_KEY", "dev-key-change-in-production").split(",") if k}
PUBLIC = {"/health", "/docs", "/openapi.json"}

app = FastAPI()
client = AsyncOpenAI()
buckets: dict[str, list[float]] = {}


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def protect(request: Request, call_next):
    if request.scope["path"] in PUBLIC:
        return await call_next(request)

    key = request.headers.get("x-api-key")
    if key not in KEYS:
        return JSONResponse({"detail": "Unauthorized"}, status_code=401)

    now = time.time()
    bucket = [t for t in buckets.get(key, ()) if now - t < 60]
    buckets[key] = bucket
    if len(bucket) >= 10:
        retry_after = int(60 - (now - bucket[0])) + 1
        return JSONResponse(
            {"detail": "Rate limit exceeded", "limit": 10, "window": "60s"},
            status_code=429,
            headers={"Retry-After": str(retry_after)},
        )
    bucket.append(now)

    response = await call_next(request)
    response.headers["X-RateLimit-Remaining"] = str(10 - len(bucket))
    return response


@app.get("/health")
async def health():
    return {"status": "ok"}


@app.post("/v1/chat")
async def chat(payload: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": payload.message}],
    )
    return {"response": completion.choices[0].message.content}
