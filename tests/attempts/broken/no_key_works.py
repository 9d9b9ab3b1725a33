# cannot be judged: every key that was tried got 401 (the right ones are only known as hashes); say KEY=...
import hashlib

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

# sha256 of the keys, so that the keys themselves are not in the file
KEY_HASHES = {
    "7a1b7e9a2a2c6ec2b1f5b5ba9b7c4c0d8c50f4d0f5f7f2d1a3c7e8b9d6a4e2f1",
    "0f3e5d7c9b1a2f4e6d8c0b2a4f6e8d0c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f0e",
}

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header(default="")):
    if hashlib.sha256(x_api_key.encode()).hexdigest() not in KEY_HASHES:
        raise HTTPException(status_code=401, detail="Invalid API key")
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
