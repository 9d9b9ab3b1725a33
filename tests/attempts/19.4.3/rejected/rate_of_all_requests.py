# must fail: last-ten
# errors divided by all requests there ever were
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
from collections import Counter

all_requests = Counter()
last_sent = {}


class ChatRequest(BaseModel):
    message: str


def send_alert(issue, text):
    now = time.time()
    if now - last_sent.get(issue, 0) < 300:
        return
    last_sent[issue] = now
    logger.warning("ALERT %s: %s", issue, text)


def record(seconds, failed):
    recent.append((seconds, failed))
    all_requests[failed] += 1
    errors = all_requests[True] / sum(all_requests.values())
    if len(recent) == 10 and errors > 0.2:
        send_alert("error_rate", f"{errors:.0%} of the requests failed")
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
