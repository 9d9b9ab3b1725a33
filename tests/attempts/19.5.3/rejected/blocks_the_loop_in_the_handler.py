# must fail: in-progress
import os
import signal
import threading
import time
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from openai import OpenAI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware


class Gate:
    def __init__(self):
        self.closed = False
        self.inside = 0
        self.lock = threading.Lock()

    def enter(self):
        with self.lock:
            if self.closed:
                return False
            self.inside += 1
            return True

    def leave(self):
        with self.lock:
            self.inside -= 1


gate = Gate()


def close_first(number):
    before = signal.getsignal(number)

    def handler(*args):
        if gate.closed:
            return
        gate.closed = True

        end = time.monotonic() + 30
        while gate.inside and time.monotonic() < end:
            time.sleep(0.05)
        before(*args)
        if gate.inside:
            before(signal.SIGINT, None)  # uvicorn: leave now

    signal.signal(number, handler)


@asynccontextmanager
async def lifespan(app):
    app.state.client = OpenAI(max_retries=0, timeout=25)
    for number in (signal.SIGTERM, signal.SIGINT):
        close_first(number)
    yield
    app.state.client.close()


class TurnAway(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        if request.url.path == "/health":
            return await call_next(request)
        if not gate.enter():
            return JSONResponse({"error": "shutting down"}, 503, {"Retry-After": "10"})
        try:
            return await call_next(request)
        finally:
            gate.leave()


app = FastAPI(lifespan=lifespan)
app.add_middleware(TurnAway)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
def chat(body: ChatRequest, request: Request, token=Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    completion = request.app.state.client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    return {"response": completion.choices[0].message.content}
