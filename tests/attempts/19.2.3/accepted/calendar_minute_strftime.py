# accepted: counts per calendar minute named by time.strftime; Retry-After is what is left of the minute
import os
import time
from collections import Counter

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

api_keys = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = OpenAI()
minute = ""
counts = Counter()


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)):
    global minute
    if x_api_key not in api_keys:
        raise HTTPException(status_code=401, detail="Invalid API key")
    this_minute = time.strftime("%Y-%m-%d %H:%M")
    if this_minute != minute:  # a new minute: everybody starts again
        minute = this_minute
        counts.clear()
    if counts[x_api_key] >= 10:
        seconds_left = 60 - time.localtime().tm_sec
        raise HTTPException(
            status_code=429,
            detail="Only 10 requests per minute",
            headers={"Retry-After": str(max(1, seconds_left))},
        )
    counts[x_api_key] += 1


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
def chat(request: ChatRequest):
    response = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": response.choices[0].message.content}
