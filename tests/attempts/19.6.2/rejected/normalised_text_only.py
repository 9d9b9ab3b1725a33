# must fail: reworded, weather, embeddings
# Case, punctuation and spaces are ignored; nothing compares what the questions mean.
import os
import re

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
cache = {}


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    key = " ".join(re.findall(r"\w+", request.message.lower()))
    if key not in cache:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
        )
        cache[key] = completion.choices[0].message.content
    return {"response": cache[key]}
