# cannot be judged: still busy importing when the time was up (the loop in line 19)
import os

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
ready = os.path.exists("/nowhere/database-is-ready")


class ChatRequest(BaseModel):
    message: str


# Wait for the database
attempts = 0
while not ready:
    attempts += 1


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
