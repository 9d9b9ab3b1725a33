# is judged all the same: 10 MB of log at import, half to stdout and half to stderr; then a right solution that logs on
import logging
import math
import os
import sys
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
for number in range(50_000):
    logging.info("loading document %06d %s", number, "." * 60)
    print(f"document {number:06d} has been loaded {'.' * 68}")

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
times_by_key = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.monotonic()
    times = times_by_key[x_api_key]
    times[:] = [t for t in times if now - t < 60]
    if len(times) >= 10:
        wait = math.ceil(60 - (now - times[0]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    times.append(now)


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
