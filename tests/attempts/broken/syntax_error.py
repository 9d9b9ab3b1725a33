# cannot be judged: line 18: SyntaxError: expected ':'
import os

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header(default="")):
    if x_api_key != os.getenv("API_KEY", "dev-key-change-in-production")
        raise HTTPException(status_code=401, detail="Invalid API key")
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
