# cannot be judged: line 10: the file ended the program while it was imported (sys.exit(0)); not a success
import os
import sys

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

if not os.getenv("I_HAVE_READ_THE_README"):
    sys.exit(0)

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
