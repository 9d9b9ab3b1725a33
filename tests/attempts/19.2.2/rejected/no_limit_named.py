# must fail: own-words
# Who wrote too much is not told how much is allowed.
import os

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel, Field, field_validator

KEYS = os.environ["API_KEY"].split(",")
client = AsyncOpenAI(max_retries=0)
app = FastAPI()


class ChatRequest(BaseModel):
    message: str = Field(min_length=1)

    @field_validator("message")
    @classmethod
    def not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("the message must not be blank")
        if len(value) > 1000:
            raise ValueError("the message is too long")
        return value


@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str = Header()):
    if x_api_key not in KEYS:
        raise HTTPException(401, "wrong key")
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    return {"response": completion.choices[0].message.content}
