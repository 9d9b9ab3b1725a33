# accepted: /metrics as lists of pairs, a collector by dependency injection, statistics.quantiles, sync def, responses API
import os
import statistics
import threading
import time
from collections import Counter, deque
from typing import Annotated
from uuid import uuid4

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import APIStatusError, OpenAI, OpenAIError
from pydantic import BaseModel


class Collector:
    def __init__(self):
        self.lock = threading.Lock()
        self.seen = deque()
        self.seconds = []
        self.errors = Counter()
        self.tokens = Counter()

    def add(self, seconds, error=None):
        with self.lock:
            self.seen.append(time.time())
            self.seconds.append(seconds)
            if error:
                self.errors[error] += 1

    def report(self):
        now = time.time()
        with self.lock:
            recent = [now - t for t in self.seen if now - t < 300]
            seconds = sorted(self.seconds)
            p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else sum(seconds)
            return {
                "requests_per_minute": [
                    {"minutes_ago": ago, "requests": sum(ago * 60 <= age < ago * 60 + 60 for age in recent)}
                    for ago in range(5)
                ],
                "latency": {"p95_seconds": p95},
                "top_errors": [list(pair) for pair in self.errors.most_common(5)],
                "tokens": [{"conversation": id, "total": n} for id, n in self.tokens.items()],
            }


collector = Collector()
Metrics = Annotated[Collector, Depends(lambda: collector)]
app = FastAPI()
client = OpenAI(max_retries=0)


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


@app.post("/v1/chat")
def chat(request: ChatRequest, metrics: Metrics, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "Invalid API key")
    id, began = request.conversation_id or uuid4().hex, time.perf_counter()
    try:
        response = client.responses.create(model="gpt-4o-mini", input=request.message)
    except OpenAIError as error:
        status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
        metrics.add(time.perf_counter() - began, type(error).__name__ + status)
        raise HTTPException(502, "The model did not answer") from None
    metrics.add(time.perf_counter() - began)
    metrics.tokens[id] += response.usage.total_tokens if response.usage else 0
    return {"response": response.output_text, "conversation_id": id}


@app.get("/metrics")
def metrics(metrics: Metrics):
    return metrics.report()
