# accepted: datetime.now() without a time zone, timedelta arithmetic, any non-empty key, a new async client per request
import math
from datetime import datetime, timedelta

from fastapi import FastAPI, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()

ONE_MINUTE = timedelta(minutes=1)
requests_by_key: dict[str, list[datetime]] = {}


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


def enforce_limit(key: str) -> None:
    now = datetime.now()
    recent = [moment for moment in requests_by_key.get(key, []) if now - moment < ONE_MINUTE]
    if len(recent) >= 10:
        free_again = recent[0] + ONE_MINUTE
        seconds = math.ceil((free_again - now).total_seconds())
        raise HTTPException(
            status_code=429,
            detail={"error": "too_many_requests", "free_again": free_again.isoformat()},
            headers={"Retry-After": str(max(seconds, 1))},
        )
    recent.append(now)
    requests_by_key[key] = recent


@app.post("/v1/chat")
async def chat(body: ChatRequest, request: Request):
    key = request.headers.get("X-API-Key", "").strip()
    if not key:
        raise HTTPException(status_code=401, detail="Please send an X-API-Key header")
    enforce_limit(key)
    async with AsyncOpenAI() as client:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
    return {"answer": {"text": answer.choices[0].message.content, "model": answer.model}}
