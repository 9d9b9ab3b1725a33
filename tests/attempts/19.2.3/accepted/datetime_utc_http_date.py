# accepted: datetime.now(timezone.utc), and a Retry-After that is an HTTP date instead of a number
import os
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
LIMIT = 10
WINDOW = timedelta(seconds=60)

app = FastAPI()
header = APIKeyHeader(name="X-API-Key", auto_error=False)
openai_client = AsyncOpenAI(max_retries=1, timeout=30)
calls: defaultdict[str, list[datetime]] = defaultdict(list)


class Message(BaseModel):
    message: str


async def api_key(key: str | None = Security(header)) -> str:
    if key is None or key not in KEYS:
        raise HTTPException(401, "wrong or missing API key")
    return key


async def limited(key: str = Depends(api_key)) -> str:
    now = datetime.now(timezone.utc)
    calls[key] = [when for when in calls[key] if when + WINDOW > now]
    if len(calls[key]) >= LIMIT:
        # An HTTP date has whole seconds: the next one, so that it is never too early.
        again = (calls[key][0] + WINDOW).replace(microsecond=0) + timedelta(seconds=1)
        raise HTTPException(429, "ten requests a minute", {"Retry-After": format_datetime(again, usegmt=True)})
    calls[key].append(now)
    return key


@app.post("/v1/chat")
async def chat(body: Message, key: str = Depends(limited)) -> dict[str, str]:
    completion = await openai_client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": body.message}],
    )
    return {"response": completion.choices[0].message.content or ""}
