# must fail: eleventh-429
# Raises HTTPException(429) inside a middleware, where nothing catches it: the client sees 500.
import math
import os
import time

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
requests_of: dict[str, list[float]] = {key: [] for key in KEYS}


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def limit_requests(request: Request, call_next):
    times = requests_of.get(request.headers.get("x-api-key", ""))
    if times is not None and request.scope["path"] == "/v1/chat":
        now = time.time()
        times[:] = [t for t in times if now - t < 60]
        if len(times) >= 10:
            wait = math.ceil(60 - (now - times[0]))
            raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
        times.append(now)
    return await call_next(request)


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> None:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")


@app.post("/v1/chat", dependencies=[Depends(verify_api_key)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
