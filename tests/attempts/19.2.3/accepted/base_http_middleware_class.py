# accepted: a BaseHTTPMiddleware subclass with time.monotonic_ns (integers), own keys in a set
from collections import defaultdict
from time import monotonic_ns

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

SECOND = 1_000_000_000
CUSTOMERS = {"key-for-red-team", "key-for-blue-team"}


class PerKeyLimit(BaseHTTPMiddleware):
    def __init__(self, app, requests, seconds):
        super().__init__(app)
        self.requests = requests
        self.window = seconds * SECOND
        self.stamps = defaultdict(list)

    async def dispatch(self, request: Request, call_next):
        key = request.headers.get("X-API-Key", "")
        if key not in CUSTOMERS:
            return await call_next(request)  # not ours to count: the endpoint refuses it
        now = monotonic_ns()
        stamps = self.stamps[key]
        stamps[:] = [stamp for stamp in stamps if now - stamp < self.window]
        if len(stamps) >= self.requests:
            left = self.window - (now - stamps[0])
            return JSONResponse(
                status_code=429,
                content={"error": {"code": 429, "message": "Quota of this minute is used up"}},
                headers={"Retry-After": str(-(-left // SECOND))},  # rounded up
            )
        stamps.append(now)
        return await call_next(request)


app = FastAPI()
app.add_middleware(PerKeyLimit, requests=10, seconds=60)


class Prompt(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(prompt: Prompt, request: Request):
    if request.headers.get("X-API-Key") not in CUSTOMERS:
        raise HTTPException(status_code=403, detail="Forbidden")
    client = AsyncOpenAI()
    result = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": prompt.message}]
    )
    return {"data": {"reply": result.choices[0].message.content}}
