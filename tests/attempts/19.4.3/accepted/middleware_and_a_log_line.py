# accepted: a BaseHTTPMiddleware that judges every answer from 500 on, lists, logging.critical with JSON, windows of any length
import json
import logging
import os
import time
from datetime import datetime, timedelta

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

logger = logging.getLogger("alerts")
logger.addHandler(logging.StreamHandler())
recent: list[dict] = []
last_alert: dict[str, datetime] = {}


def alert(kind, **facts):
    if kind in last_alert and datetime.now() - last_alert[kind] < timedelta(minutes=5):
        return
    last_alert[kind] = datetime.now()
    logger.critical(json.dumps({"alert": kind, **facts}))


class Watch(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        if request.method != "POST":
            return await call_next(request)
        began = time.time()
        status = 500
        try:
            response = await call_next(request)
            status = response.status_code
            return response
        finally:
            if status != 401:
                recent.append({"failed": status >= 500, "took": time.time() - began})
                del recent[:-10]
                self.judge()

    def judge(self):
        rate = sum(r["failed"] for r in recent) / 10
        if rate > 0.20:
            alert("high_error_rate", rate=rate, threshold=0.2)
        average = sum(r["took"] for r in recent) / len(recent)
        if average > 10.0:
            alert("slow_responses", average_s=round(average, 2), threshold=10)


app = FastAPI()
app.add_middleware(Watch)
client = AsyncOpenAI(max_retries=0, timeout=100)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
