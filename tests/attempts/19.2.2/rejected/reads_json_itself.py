# must fail: never-500
# The body is read by hand, and whatever does not fit is a 500.
import os

from fastapi import FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI

KEYS = os.environ["API_KEY"].split(",")
client = AsyncOpenAI(max_retries=0)
app = FastAPI()


@app.post("/v1/chat")
async def chat(request: Request, x_api_key: str = Header()):
    if x_api_key not in KEYS:
        raise HTTPException(401, "wrong key")
    message = (await request.json())["message"]
    if not message.strip():
        raise HTTPException(400, "the message is empty")
    if len(message) > 1000:
        raise HTTPException(400, "the message has more than 1000 characters")
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": message}]
    )
    return {"response": completion.choices[0].message.content}
