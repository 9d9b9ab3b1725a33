# must fail: json-lines
# The dict is printed as Python shows it, with single quotes: no JSON parser reads that.
import os
import uuid

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    request_id = str(uuid.uuid4())
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    print({"request_id": request_id, "message": request.message[:100]}, flush=True)
    result = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    tokens = result.usage.total_tokens if result.usage else None
    print({"request_id": request_id, "model": result.model, "tokens": tokens}, flush=True)
    return {"response": result.choices[0].message.content}
