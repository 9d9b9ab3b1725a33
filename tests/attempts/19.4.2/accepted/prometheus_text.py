# accepted: plain text in the manner of Prometheus, a BaseHTTPMiddleware that measures, module-level dicts
import math
import os
import time
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from openai import AsyncOpenAI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

started_at: list[float] = []
durations: list[float] = []
errors: dict[str, int] = {}
tokens: dict[str, int] = {}


class Measure(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        if request.url.path != "/v1/chat":
            return await call_next(request)
        began = time.monotonic()
        response = await call_next(request)
        if response.status_code != 401:
            started_at.append(began)
            durations.append(time.monotonic() - began)
        return response


app = FastAPI()
app.add_middleware(Measure)
client = AsyncOpenAI(max_retries=0)


class ChatRequest(BaseModel):
    message: str
    conversation_id: str = ""


@app.post("/v1/chat")
async def chat(chat: ChatRequest, request: Request):
    if request.headers.get("x-api-key") not in os.environ["API_KEY"].split(","):
        return JSONResponse({"detail": "unauthorized"}, 401)
    conversation = chat.conversation_id or str(uuid.uuid4())
    try:
        result = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": chat.message}]
        )
    except Exception as error:
        name = f"{type(error).__name__}_{getattr(error, 'status_code', '')}"
        errors[name] = errors.get(name, 0) + 1
        return JSONResponse({"detail": "model failed"}, 503)
    tokens[conversation] = tokens.get(conversation, 0) + (result.usage.total_tokens if result.usage else 0)
    return {"response": result.choices[0].message.content, "conversation_id": conversation}


@app.get("/metrics", response_class=PlainTextResponse)
async def metrics():
    recent = sum(time.monotonic() - t <= 300 for t in started_at)
    ordered = sorted(durations)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else 0
    lines = [
        f"requests_per_minute {recent / 5}",
        f'response_time_seconds{{quantile="0.95"}} {p95}',
        *(f'errors_total{{type="{k}"}} {n}' for k, n in sorted(errors.items(), key=lambda e: -e[1])[:5]),
        *(f'tokens_total{{conversation="{k}"}} {n}' for k, n in tokens.items()),
    ]
    return "\n".join(lines) + "\n"
