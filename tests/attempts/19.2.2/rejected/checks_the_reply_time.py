# must fail: before-the-model
# The model is asked first, and the message is looked at afterwards.
import os

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

KEYS = os.environ["API_KEY"].split(",")
client = AsyncOpenAI(max_retries=0)
app = FastAPI()


class ChatRequest(BaseModel):
    message: str = Field()



@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str = Header()):
    if x_api_key not in KEYS:
        raise HTTPException(401, "wrong key")
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    if not body.message.strip():
        raise HTTPException(422, "the message must not be blank")
    if len(body.message) > 1000:
        raise HTTPException(422, "the message must have at most 1000 characters")
    return {"response": completion.choices[0].message.content}
