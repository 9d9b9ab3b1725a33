"""Exercise 3: automated alerts."""
import asyncio
import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Deque, Dict, Optional

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logger = logging.getLogger("alerts")


@dataclass
class AlertManager:
    window: int = 10
    error_threshold: float = 0.20
    latency_threshold: float = 10.0
    cooldown: float = 300.0
    results: Deque[bool] = field(default_factory=lambda: deque(maxlen=10))
    durations: Deque[float] = field(default_factory=lambda: deque(maxlen=10))
    last_alert: Dict[str, float] = field(default_factory=dict)

    async def record(self, ok: bool, duration: float):
        self.results.append(ok)
        self.durations.append(duration)
        await self.check()

    async def check(self):
        if len(self.results) < self.window:
            return
        rate = self.results.count(False) / len(self.results)
        if rate > self.error_threshold:
            await self.send_alert("high_error_rate", f"Error rate {rate:.0%} in the last {len(self.results)} requests")
        avg = sum(self.durations) / len(self.durations)
        if avg > self.latency_threshold:
            await self.send_alert("slow_responses", f"Average response time {avg:.1f}s")

    async def send_alert(self, kind: str, text: str):
        now = time.time()
        if now - self.last_alert.get(kind, 0) < self.cooldown:
            logger.debug("Alert suppressed: %s", kind)
            return
        self.last_alert[kind] = now
        logger.critical("ALERT [%s] %s", kind, text)


alerts = AlertManager()
app = FastAPI()
client = AsyncOpenAI(max_retries=0)


async def get_api_key(x_api_key: Optional[str] = Header(default=None)):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "bad key")
    return x_api_key


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat", dependencies=[Depends(get_api_key)])
async def chat(req: ChatRequest):
    start = time.monotonic()
    ok = False
    try:
        r = await client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": req.message}])
        ok = True
        return {"response": r.choices[0].message.content}
    except Exception as exc:
        logger.exception("chat failed")
        raise HTTPException(500, "Something went wrong") from exc
    finally:
        await alerts.record(ok, time.monotonic() - start)
