# must fail: eleventh-429
# Refuses the eleventh request with 403 Forbidden.
import math
import os
import time
from collections import defaultdict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()
usage = defaultdict(list)


class ChatRequest(BaseModel):
    message: str


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=403, detail="Invalid API key")
    now = time.time()
    usage[x_api_key] = [t for t in usage[x_api_key] if t > now - 60]
    if len(usage[x_api_key]) >= 10:
        wait = math.ceil(usage[x_api_key][0] + 60 - now)
        raise HTTPException(
            status_code=403, detail="Quota of this key is used up", headers={"Retry-After": str(wait)}
        )
    usage[x_api_key].append(now)
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
