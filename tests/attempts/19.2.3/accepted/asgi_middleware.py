# accepted: a pure ASGI middleware that counts each X-API-Key before the key is checked, so also a wrong key (by itself)
import json
import math
import os
import time
from collections import deque

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

VALID_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


class RateLimitMiddleware:
    def __init__(self, app, limit=10, window=60.0):
        self.app = app
        self.limit = limit
        self.window = window
        self.log = {}

    async def __call__(self, scope, receive, send):
        key = dict(scope["headers"]).get(b"x-api-key") if scope["type"] == "http" else None
        if key is None or scope["path"] != "/v1/chat":
            await self.app(scope, receive, send)
            return

        now = time.time()
        times = self.log.setdefault(key, deque())
        while times and times[0] + self.window <= now:
            times.popleft()
        if len(times) < self.limit:
            times.append(now)
            await self.app(scope, receive, send)
            return

        wait = math.ceil(times[0] + self.window - now)
        body = json.dumps({"error": "rate_limited", "retry_after": wait}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"retry-after", str(wait).encode()),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})


app = FastAPI()
app.add_middleware(RateLimitMiddleware, limit=10, window=60.0)
client = AsyncOpenAI()


class ChatIn(BaseModel):
    message: str


def require_key(x_api_key: str | None = Header(default=None)):
    if x_api_key not in VALID_KEYS:
        raise HTTPException(status_code=401, detail="no valid key")


@app.post("/v1/chat", dependencies=[Depends(require_key)])
async def chat(chat_in: ChatIn):
    reply = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": chat_in.message}]
    )
    return {"response": reply.choices[0].message.content}
