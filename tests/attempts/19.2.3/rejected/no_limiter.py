# must fail: eleventh-429
# The key is checked, but nothing is ever counted.
import os

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


class ChatResponse(BaseModel):
    response: str


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.post("/v1/chat", response_model=ChatResponse)
async def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    # TODO: at most 10 requests per minute
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": request.message}],
    )
    return ChatResponse(response=completion.choices[0].message.content)
