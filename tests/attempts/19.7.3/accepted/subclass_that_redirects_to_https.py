# accepted: a subclass of FastAPI whose __call__ adds what is missing, redirects to HTTPS as well
import os

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware

DEFAULTS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "strict-transport-security": 'max-age="31536000"; includeSubDomains',
    "cache-control": "no-store",
}


class Hardened(FastAPI):
    async def __call__(self, scope, receive, send):
        async def hardened(message):
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                extra = [(n.encode(), v.encode()) for n, v in DEFAULTS.items() if n.encode() not in present]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await super().__call__(scope, receive, hardened if scope["type"] == "http" else send)


app = Hardened()
app.add_middleware(HTTPSRedirectMiddleware)

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
