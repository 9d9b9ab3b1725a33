# must fail: eleventh-429
# Looks at the list, awaits the model, and appends only then: thirty requests at once all see an empty list.
import math
import os
import time
from collections import defaultdict

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
successful: dict[str, list[float]] = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str | None = Header(default=None)):
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")

    now = time.time()
    successful[x_api_key] = [t for t in successful[x_api_key] if now - t < 60]
    if len(successful[x_api_key]) >= 10:
        wait = math.ceil(60 - (now - successful[x_api_key][0]))
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": str(wait)})

    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    successful[x_api_key].append(now)  # only requests that worked count
    return {"response": completion.choices[0].message.content}
