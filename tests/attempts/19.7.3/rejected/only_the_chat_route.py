# must fail: on-errors, when-it-breaks, policy-on-pages
# The headers are set on the response of the chat route, and nowhere else.
import os

from fastapi import FastAPI, Header, HTTPException, Response
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI(max_retries=0)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, response: Response, x_api_key: str = Header("")):
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Content-Security-Policy"] = "default-src 'none'"
    response.headers["Strict-Transport-Security"] = "max-age=31536000"
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
