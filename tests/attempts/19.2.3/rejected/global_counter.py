# must fail: per-key
# One list for everybody: ten requests of one key use up the minute of all the others.
import math
import os
import time

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = OpenAI()
request_times: list[float] = []


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    now = time.time()
    while request_times and request_times[0] <= now - 60:
        request_times.pop(0)
    if len(request_times) >= 10:
        wait = math.ceil(request_times[0] + 60 - now)
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})
    request_times.append(now)


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
def chat(request: ChatRequest):
    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
