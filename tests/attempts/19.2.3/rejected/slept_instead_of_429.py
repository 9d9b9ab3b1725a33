# must fail: eleventh-429
# The eleventh request is made to wait until there is room: nobody is told to come back later.
import asyncio
import os
import time

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
hits = {}


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    mine = hits.setdefault(x_api_key, [])
    while len([t for t in mine if time.time() - t < 60]) >= 10:
        await asyncio.sleep(1)
    mine.append(time.time())
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
