# accepted: a status without a place in the queue, which no bullet asks for
import asyncio
import logging
import os
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Dict, Optional

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

logger = logging.getLogger("queue")
API_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


@dataclass
class QueuedRequest:
    request_id: str
    message: str
    status: str = "queued"
    result: Optional[str] = None
    error: Optional[str] = None


class RequestQueue:
    def __init__(self, max_concurrent: int = 5):
        self.max_concurrent = max_concurrent
        self.requests: Dict[str, QueuedRequest] = {}
        self.queue: asyncio.Queue = asyncio.Queue()
        self._lock = asyncio.Lock()
        self.client = AsyncOpenAI(timeout=30, max_retries=1)

    async def enqueue(self, message: str) -> QueuedRequest:
        queued = QueuedRequest(str(uuid.uuid4()), message)
        async with self._lock:
            self.requests[queued.request_id] = queued
            await self.queue.put(queued)
        return queued

    async def get_status(self, request_id: str) -> Optional[dict]:
        queued = self.requests.get(request_id)
        if queued is None:
            return None
        status = {"request_id": request_id, "status": queued.status}
        if queued.status == "completed":
            status["result"] = queued.result
        if queued.status == "failed":
            status["error"] = queued.error
        return status

    async def process(self, queued: QueuedRequest) -> None:
        queued.status = "processing"
        try:
            completion = await self.client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": queued.message}]
            )
            queued.result = completion.choices[0].message.content
            queued.status = "completed"
        except Exception:
            logger.exception("request %s failed", queued.request_id)
            queued.error = "the model did not answer"
            queued.status = "failed"

    async def worker(self) -> None:
        while True:
            queued = await self.queue.get()
            await self.process(queued)


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.queue = RequestQueue()
    workers = [asyncio.create_task(app.state.queue.worker()) for _ in range(app.state.queue.max_concurrent)]
    yield
    for worker in workers:
        worker.cancel()


app = FastAPI(lifespan=lifespan)


class ChatRequest(BaseModel):
    message: str


def verify(x_api_key: str = Header()) -> str:
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


@app.post("/v1/chat", status_code=202)
async def chat(request: ChatRequest, key: str = Depends(verify)):
    queued = await app.state.queue.enqueue(request.message)
    return {"request_id": queued.request_id, "status": queued.status}


@app.get("/status/{request_id}")
async def status(request_id: str, key: str = Depends(verify)):
    found = await app.state.queue.get_status(request_id)
    if found is None:
        raise HTTPException(status_code=404, detail="Request not found")
    return found
