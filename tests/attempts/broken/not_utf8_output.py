# is judged all the same: bytes that are not UTF-8 on stdout and stderr at import; then a right solution
import math
import os
import sys
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

sys.stdout.buffer.write(b"\xff\xfe S\xe9curit\xe9 d'abord \x80\x81\r\n")
sys.stdout.buffer.flush()
sys.stderr.buffer.write(b"\xc3\x28 \x1b[31mnot UTF-8 either\x1b[0m\x00\n")
sys.stderr.buffer.flush()

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
