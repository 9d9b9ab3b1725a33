# must fail: tokens
# tokens are estimated from the length of the texts
import os
import time
import uuid
from collections import Counter, defaultdict
from typing import Optional

from fastapi import FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI(max_retries=0)
KEYS = os.getenv("API_KEY", "dev-key").split(",")

times = []
durations = []
errors = Counter()
tokens = defaultdict(int)
histories = defaultdict(list)


class ChatRequest(BaseModel):
    message: str
    conversation_id: Optional[str] = None


@app.middleware("http")
async def measure(request: Request, call_next):
    start = time.time()
    response = await call_next(request)
    times.append(start)
    durations.append((time.time() - start) * 1000)
    if response.status_code >= 400:
        errors[str(response.status_code)] += 1
    return response


@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in KEYS:
        raise HTTPException(401)
    conversation_id = body.conversation_id or str(uuid.uuid4())
    messages = histories[conversation_id] + [{"role": "user", "content": body.message}]
    try:
        answer = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    except Exception as error:
        raise HTTPException(502, type(error).__name__)
    text = answer.choices[0].message.content
    histories[conversation_id] = messages + [{"role": "assistant", "content": text}]
    tokens[conversation_id] += (len(body.message) + len(text)) // 4
    return {"response": text, "conversation_id": conversation_id}


@app.get("/metrics")
async def metrics():
    now = time.time()
    per_minute = [sum(1 for t in times if i * 60 <= now - t < (i + 1) * 60) for i in range(5)]
    ordered = sorted(durations)
    p95 = ordered[int(0.95 * len(ordered))] if ordered else 0
    return {
        "traffic": {"requests_per_minute": per_minute, "total": len(times)},
        "latency": {"p95_ms": round(p95, 1)},
        "errors": {"top": errors.most_common(5), "total": sum(errors.values())},
        "tokens": [{"conversation": c, "tokens": n} for c, n in tokens.items()],
    }
