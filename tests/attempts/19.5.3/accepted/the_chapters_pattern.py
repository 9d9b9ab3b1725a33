import asyncio
import logging
import os
import signal
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

logger = logging.getLogger("agent")
API_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


class GracefulShutdown:
    def __init__(self):
        self.shutdown_requested = False
        self.active_requests = 0
        self.tasks = set()
        self._lock = asyncio.Lock()
        self._shutdown_event = asyncio.Event()

    async def request_started(self):
        async with self._lock:
            if self.shutdown_requested:
                raise RuntimeError("Server is shutting down")
            self.active_requests += 1
            self.tasks.add(asyncio.current_task())

    async def request_finished(self):
        async with self._lock:
            self.active_requests -= 1
            self.tasks.discard(asyncio.current_task())
            if self.shutdown_requested and self.active_requests == 0:
                self._shutdown_event.set()

    async def wait_for_completion(self, timeout: float = 30.0):
        if self.active_requests == 0:
            return
        try:
            await asyncio.wait_for(self._shutdown_event.wait(), timeout)
        except asyncio.TimeoutError:
            logger.warning("giving up on %d requests", self.active_requests)
            for task in list(self.tasks):
                task.cancel()


@asynccontextmanager
async def lifespan(app: FastAPI):
    shutdown = app.state.shutdown = GracefulShutdown()
    app.state.client = AsyncOpenAI()
    loop = asyncio.get_running_loop()
    previous = {}

    async def drain(signum):
        await shutdown.wait_for_completion()
        previous[signum](signum, None)

    def begin(signum):
        if not shutdown.shutdown_requested:
            shutdown.shutdown_requested = True
            app.state.draining = asyncio.ensure_future(drain(signum))

    def handler(signum, frame):
        loop.call_soon_threadsafe(begin, signum)

    for signum in (signal.SIGINT, signal.SIGTERM):
        previous[signum] = signal.signal(signum, handler)
    yield
    await app.state.client.close()
    logging.shutdown()


app = FastAPI(lifespan=lifespan)


class ChatRequest(BaseModel):
    message: str


def verify(x_api_key: str = Header()):
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")


@app.middleware("http")
async def count(request: Request, call_next):
    shutdown = request.app.state.shutdown
    try:
        await shutdown.request_started()
    except RuntimeError as error:
        return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "10"})
    try:
        return await call_next(request)
    finally:
        await shutdown.request_finished()


@app.post("/v1/chat", dependencies=[Depends(verify)])
async def chat(request: ChatRequest):
    completion = await app.state.client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
