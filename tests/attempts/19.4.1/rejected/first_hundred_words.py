# must fail: not-more
# The first 100 words are logged, where the chapter says characters.
import json
import os
import uuid

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


def log(request_id, **fields):
    print(json.dumps({"request_id": request_id, **fields}), flush=True)


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    request_id = str(uuid.uuid4())
    if x_api_key not in os.environ["API_KEY"].split(","):
        log(request_id, event="unauthorized")
        raise HTTPException(401)
    log(request_id, event="received", message=" ".join(request.message.split()[:100]))
    result = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    tokens = result.usage.total_tokens if result.usage else None
    log(request_id, event="answered", model=result.model, tokens=tokens)
    return {"response": result.choices[0].message.content}
