# must fail: eleventh-429
# Returns (body, 429) as in Flask; FastAPI sends that tuple as a JSON list with status 200.
import os
import time
from collections import defaultdict

from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = OpenAI()
request_log = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


def allow(key):
    now = time.time()
    request_log[key] = [t for t in request_log[key] if now - t < 60]
    if len(request_log[key]) >= 10:
        return False
    request_log[key].append(now)
    return True


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    if not allow(x_api_key):
        return {"error": "Too Many Requests", "Retry-After": "60"}, 429
    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
