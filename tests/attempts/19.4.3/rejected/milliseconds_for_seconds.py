# must fail: response-time-limit, average
# The response times are in milliseconds and the threshold is not: a second is "slow".
import os
import time
from collections import deque

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI, OpenAIError
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI(max_retries=0, timeout=100)
recent = deque(maxlen=10)
sent = {}


class ChatRequest(BaseModel):
    message: str


def alert(kind, text):
    if time.time() - sent.get(kind, 0) >= 300:
        sent[kind] = time.time()
        print(f"ALERT {kind}: {text}", flush=True)


def record(failed, ms):
    recent.append((failed, ms))
    if len(recent) == 10 and sum(f for f, _ in recent) > 2:
        alert("error-rate", "too many errors")
    if sum(ms for _, ms in recent) / len(recent) > 1000:
        alert("response-time", "too slow")


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    began = time.time()
    try:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
        )
    except OpenAIError:
        record(True, (time.time() - began) * 1000)
        raise HTTPException(502)
    record(False, (time.time() - began) * 1000)
    return {"response": completion.choices[0].message.content}
