# must fail: error-rate
# Three errors in a row raise the alarm; three among ten do not.
import os
import time
from collections import deque

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI, OpenAIError
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI(max_retries=0, timeout=100)
times = deque(maxlen=10)
state = {"in_a_row": 0}
sent = {}


class ChatRequest(BaseModel):
    message: str


def alert(kind, text):
    if time.time() - sent.get(kind, 0) >= 300:
        sent[kind] = time.time()
        print(f"ALERT {kind}: {text}", flush=True)


def record(failed, seconds):
    times.append(seconds)
    state["in_a_row"] = state["in_a_row"] + 1 if failed else 0
    if state["in_a_row"] >= 3:
        alert("error-rate", "too many errors")
    if sum(times) / len(times) > 10:
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
        record(True, time.time() - began)
        raise HTTPException(502)
    record(False, time.time() - began)
    return {"response": completion.choices[0].message.content}
