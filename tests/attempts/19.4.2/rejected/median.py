# must fail: percentile
# p95 is the median of the response times.
import os
import statistics
import time
from collections import Counter
from uuid import uuid4

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI, APIStatusError
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI(max_retries=0)
times, seconds, errors, tokens = [], [], Counter(), Counter()


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    conversation, began = request.conversation_id or str(uuid4()), time.time()
    times.append(began)
    try:
        result = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
        )
    except APIStatusError as error:
        errors[f"{type(error).__name__} ({error.status_code})"] += 1
        raise HTTPException(502)
    finally:
        seconds.append(time.time() - began)
    tokens[conversation] += result.usage.total_tokens if result.usage else 0
    return {"response": result.choices[0].message.content, "conversation_id": conversation}


@app.get("/metrics")
async def metrics():
    recent = [t for t in times if time.time() - t < 300]
    return {
        "requests_per_minute": len(recent) / 5,
        "p95_response_time": statistics.median(seconds) if seconds else 0,
        "top_errors": dict(errors.most_common(5)),
        "tokens_by_conversation": tokens,
    }
