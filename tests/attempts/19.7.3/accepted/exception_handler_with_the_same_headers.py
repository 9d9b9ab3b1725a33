# accepted: @app.middleware and an exception handler that sets the same headers, `SAMEORIGIN` nowhere
import os

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net",
    "Strict-Transport-Security": "max-age=15768000",
}

app = FastAPI(title="agent")


@app.middleware("http")
async def safe(request: Request, call_next):
    response = await call_next(request)
    for name, value in SAFE.items():
        response.headers.setdefault(name, value)
    return response


@app.exception_handler(Exception)
async def broken(request: Request, error: Exception):
    return JSONResponse({"detail": "internal error"}, status_code=500, headers=SAFE)


client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


def key(x_api_key: str | None = Header(default=None)) -> None:
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "unknown key")


@app.post("/v1/chat", dependencies=[Depends(key)])
async def chat(request: ChatRequest):
    messages = [{"role": "user", "content": request.message}]
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    return {"response": answer.choices[0].message.content}
