# must fail: once, burst
# nothing limits the alerts
import logging
import os
import time
from collections import deque

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("agent")
app = FastAPI()
client = AsyncOpenAI(max_retries=0)
KEYS = os.environ.get("API_KEY", "dev-key").split(",")

recent = deque(maxlen=10)
last_sent = {}


class ChatRequest(BaseModel):
    message: str


def send_alert(issue, text):
    now = time.time()
    last_sent[issue] = now
    logger.warning("ALERT %s: %s", issue, text)


def record(seconds, failed):
    recent.append((seconds, failed))
    errors = sum(failed for _, failed in recent)
    if len(recent) == 10 and errors / 10 > 0.2:
        send_alert("error_rate", f"{errors} of the last 10 requests failed")
    average = sum(seconds for seconds, _ in recent) / len(recent)
    if average > 10:
        send_alert("response_time", f"{average:.1f} s on average")


@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str = Header(None)):
    if x_api_key not in KEYS:
        raise HTTPException(401, "wrong key")
    start = time.time()
    failed = True
    try:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
        failed = False
    except Exception:
        raise HTTPException(503, "try again later")
    finally:
        record(time.time() - start, failed)
    return {"response": answer.choices[0].message.content}
