# accepted: the package `secure` in a middleware of FastAPI, which never sees the 500 of an unhandled exception
import os

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel
from secure import ContentSecurityPolicy, Secure, StrictTransportSecurity, XContentTypeOptions, XFrameOptions

HEADERS = Secure(
    csp=ContentSecurityPolicy().default_src("'self'"),
    hsts=StrictTransportSecurity().max_age(31536000),
    xcto=XContentTypeOptions().nosniff(),
    xfo=XFrameOptions().deny(),
)

app = FastAPI()


@app.middleware("http")
async def secured(request: Request, call_next):
    response = await call_next(request)
    await HEADERS.set_headers_async(response)
    return response


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
