# must fail: retry-after
# int() cuts the rest off, so during the last second of the wait it says Retry-After: 0 and still refuses.
import os
import time
from collections import defaultdict

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
RATE_LIMIT = 10
RATE_WINDOW = 60

app = FastAPI()
client = AsyncOpenAI()
requests_by_key: dict[str, list[float]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


def check_rate_limit(api_key: str) -> None:
    now = time.time()
    recent = [t for t in requests_by_key[api_key] if now - t < RATE_WINDOW]
    requests_by_key[api_key] = recent
    if len(recent) >= RATE_LIMIT:
        retry_after = int(RATE_WINDOW - (now - recent[0]))
        raise HTTPException(
            status_code=429,
            detail="Rate limit exceeded",
            headers={"Retry-After": str(retry_after)},
        )
    recent.append(now)


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    check_rate_limit(x_api_key)
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
