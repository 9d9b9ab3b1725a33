# cannot be judged: line 10: ValueError: DATABASE_URL is required, see the README
import os

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

DATABASE_URL = os.getenv("DATABASE_URL_OF_THIS_STUDENT")
if not DATABASE_URL:
    raise ValueError("DATABASE_URL is required, see the README")

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
