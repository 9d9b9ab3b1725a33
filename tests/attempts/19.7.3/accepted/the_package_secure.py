# accepted: the package `secure` around the app, its headers chosen by hand
import os

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel
from secure import ContentSecurityPolicy, Secure, StrictTransportSecurity, XContentTypeOptions, XFrameOptions

HEADERS = Secure(
    csp=ContentSecurityPolicy().default_src("'self'").frame_ancestors("'none'"),
    hsts=StrictTransportSecurity().max_age(31536000),
    xcto=XContentTypeOptions().nosniff(),
    xfo=XFrameOptions().deny(),
)
FIELDS = [(name.encode(), value.encode()) for name, value in HEADERS.headers.items()]

api = FastAPI()


async def app(scope, receive, send):
    async def secured(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *FIELDS]}
        await send(message)

    await api(scope, receive, secured)


client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


def key(x_api_key: str | None = Header(default=None)) -> None:
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "unknown key")


@api.post("/v1/chat", dependencies=[Depends(key)])
async def chat(request: ChatRequest):
    messages = [{"role": "user", "content": request.message}]
    answer = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    return {"response": answer.choices[0].message.content}
