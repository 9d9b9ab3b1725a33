# accepted: a task of its own looks every five seconds, as a monitoring system would; the chapter's class, a log line
import asyncio
import logging
import os
import time
from collections import deque
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logger = logging.getLogger("agent")


class AlertManager:
    """Checked in the background every five seconds, as a monitoring system would."""

    COOLDOWN = 300

    def __init__(self, error_threshold=0.20, latency_threshold=10.0, window=10):
        self.error_threshold = error_threshold
        self.latency_threshold = latency_threshold
        self.outcomes = deque(maxlen=window)
        self.latencies = deque(maxlen=window)
        self.last_sent = {}

    def record(self, ok: bool, seconds: float):
        self.outcomes.append(ok)
        self.latencies.append(seconds)

    def error_rate(self):
        if len(self.outcomes) < self.outcomes.maxlen:
            return 0.0
        return self.outcomes.count(False) / len(self.outcomes)

    def average_latency(self):
        return sum(self.latencies) / len(self.latencies) if self.latencies else 0.0

    def send_alert(self, issue: str, text: str):
        now = time.time()
        if now - self.last_sent.get(issue, 0) < self.COOLDOWN:
            return False
        self.last_sent[issue] = now
        logger.critical("ALERT [%s] %s", issue, text)
        return True

    def check(self):
        rate, latency = self.error_rate(), self.average_latency()
        if rate > self.error_threshold:
            self.send_alert("error_rate", f"error rate is {rate:.0%} in the last {len(self.outcomes)} requests")
        if latency > self.latency_threshold:
            self.send_alert("latency", f"average response time is {latency:.1f}s")

    async def run(self):
        while True:
            await asyncio.sleep(5)
            self.check()


alerts = AlertManager()


@asynccontextmanager
async def lifespan(app):
    app.state.client = AsyncOpenAI(max_retries=0)
    task = asyncio.create_task(alerts.run())
    yield
    task.cancel()
    await app.state.client.close()


app = FastAPI(lifespan=lifespan)


def key(value: str = Depends(APIKeyHeader(name="X-API-Key"))):
    if value != os.getenv("API_KEY", "dev-key-change-in-production"):
        raise HTTPException(401, "Invalid API key")


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def monitor(request: Request, call_next):
    if not request.url.path.startswith("/v1/"):
        return await call_next(request)
    start, ok = time.time(), False
    try:
        response = await call_next(request)
        ok = response.status_code < 500
        return response
    finally:
        alerts.record(ok, time.time() - start)


@app.post("/v1/chat", dependencies=[Depends(key)])
async def chat(body: ChatRequest):
    r = await app.state.client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}])
    return {"response": r.choices[0].message.content}
