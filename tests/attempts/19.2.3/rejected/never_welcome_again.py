# must fail: window, retry-after-honest
# A plain counter that nothing ever resets: after ten requests the key is locked out for good.
import os
from collections import Counter

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = OpenAI()
request_count = Counter()


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str | None = Header(default=None)) -> None:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    request_count[x_api_key] += 1
    if request_count[x_api_key] > 10:
        raise HTTPException(status_code=429, detail="Too many requests", headers={"Retry-After": "60"})


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
def chat(request: ChatRequest):
    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
