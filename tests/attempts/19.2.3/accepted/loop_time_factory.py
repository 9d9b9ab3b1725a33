# accepted: the event loop's own clock under an asyncio.Lock; a create_app() factory whose lifespan opens the client
import asyncio
import math
import os
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel


class ChatRequest(BaseModel):
    message: str


class Limiter:
    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self.lock = asyncio.Lock()
        self.accepted: dict[str, list[float]] = {}

    async def acquire(self, key: str) -> float:
        """Return 0 if the request may pass, else the seconds to wait."""
        async with self.lock:
            now = asyncio.get_running_loop().time()
            times = self.accepted.setdefault(key, [])
            while times and times[0] <= now - self.seconds:
                times.pop(0)
            if len(times) == self.limit:
                return times[0] + self.seconds - now
            await asyncio.sleep(0)  # stands for a call to a shared store; the lock is still held
            times.append(now)
            return 0.0


def create_app() -> FastAPI:
    keys = set(os.environ.get("API_KEY", "dev-key-change-in-production").split(","))

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        app.state.limiter = Limiter(10, 60)
        async with AsyncOpenAI() as app.state.client:
            yield

    app = FastAPI(lifespan=lifespan)

    async def allowed(request: Request, x_api_key: str | None = Header(None)) -> None:
        if x_api_key not in keys:
            raise HTTPException(401, "invalid key")
        wait = await request.app.state.limiter.acquire(x_api_key)
        if wait > 0:
            raise HTTPException(429, "too many requests", headers={"Retry-After": f"{math.ceil(wait)}"})

    @app.post("/v1/chat", dependencies=[Depends(allowed)])
    async def chat(body: ChatRequest, request: Request):
        completion = await request.app.state.client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
        return {"response": completion.choices[0].message.content}

    return app
