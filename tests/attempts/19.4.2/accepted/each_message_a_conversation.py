# accepted: the app alone names conversations, one for each message; a deque of times, a middleware, no lock
import math
import os
import time
import uuid
from collections import Counter, defaultdict, deque
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel, Field


class MetricsCollector:
    def __init__(self, window_seconds: int = 300):
        self.window = window_seconds
        self.request_times = deque()
        self.durations = deque(maxlen=1000)
        self.errors = Counter()
        self.tokens = defaultdict(lambda: {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
        self.total_requests = 0
        self.started = time.time()

    def record_request(self, duration: float):
        now = time.time()
        self.total_requests += 1
        self.request_times.append(now)
        self.durations.append(duration)
        self._trim(now)

    def record_error(self, kind: str):
        self.errors[kind] += 1

    def record_tokens(self, conversation_id: str, usage):
        if usage is None:
            return
        t = self.tokens[conversation_id]
        t["prompt_tokens"] += usage.prompt_tokens
        t["completion_tokens"] += usage.completion_tokens
        t["total_tokens"] += usage.total_tokens

    def _trim(self, now):
        while self.request_times and self.request_times[0] < now - self.window:
            self.request_times.popleft()

    def requests_per_minute(self):
        now = time.time()
        self._trim(now)
        buckets = [0] * 5
        for t in self.request_times:
            i = min(int((now - t) // 60), 4)
            buckets[i] += 1
        return {
            "per_minute": {f"{i}-{i + 1} min ago": n for i, n in enumerate(buckets)},
            "average": round(sum(buckets) / 5, 2),
        }

    def p95(self):
        if not self.durations:
            return 0.0
        ordered = sorted(self.durations)
        return ordered[max(0, math.ceil(0.95 * len(ordered)) - 1)]

    def snapshot(self):
        return {
            "uptime_seconds": round(time.time() - self.started, 1),
            "total_requests": self.total_requests,
            "requests_per_minute_last_5_min": self.requests_per_minute(),
            "response_time": {
                "p95_ms": round(self.p95() * 1000, 2),
                "avg_ms": round(sum(self.durations) / len(self.durations) * 1000, 2) if self.durations else 0,
            },
            "top_errors": [{"error": e, "count": n} for e, n in self.errors.most_common(5)],
            "tokens_by_conversation": dict(self.tokens),
        }


metrics = MetricsCollector()


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.openai = AsyncOpenAI(max_retries=0)
    yield
    await app.state.openai.close()


app = FastAPI(lifespan=lifespan)
api_key_header = APIKeyHeader(name="X-API-Key", auto_error=False)


async def verify_key(key: str = Depends(api_key_header)):
    if key != os.getenv("API_KEY", "dev-key-change-in-production"):
        raise HTTPException(401, "Invalid or missing API key")


@app.middleware("http")
async def track(request: Request, call_next):
    if request.url.path == "/metrics":
        return await call_next(request)
    start = time.perf_counter()
    try:
        response = await call_next(request)
    except Exception as e:
        metrics.record_error(type(e).__name__)
        metrics.record_request(time.perf_counter() - start)
        raise
    metrics.record_request(time.perf_counter() - start)
    if response.status_code >= 400:
        metrics.record_error(f"HTTP {response.status_code}")
    return response


class ChatRequest(BaseModel):
    message: str = Field(..., min_length=1)


@app.post("/v1/chat", dependencies=[Depends(verify_key)])
async def chat(body: ChatRequest, request: Request):
    conversation_id = str(uuid.uuid4())
    r = await request.app.state.openai.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    metrics.record_tokens(conversation_id, r.usage)
    return {"response": r.choices[0].message.content, "conversation_id": conversation_id}


@app.get("/metrics")
async def get_metrics():
    return metrics.snapshot()
