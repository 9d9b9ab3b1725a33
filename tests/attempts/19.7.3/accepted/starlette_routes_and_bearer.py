# accepted: pure ASGI with MutableHeaders outside of everything, docs switched off, plain def, an own 500 handler
import os

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPBearer
from openai import OpenAI
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders

api = FastAPI(docs_url=None, redoc_url=None)
client = OpenAI(max_retries=0)


class ChatRequest(BaseModel):
    message: str


@api.get("/", response_class=HTMLResponse)
def home():
    return "<h1>Agent</h1>"


@api.post("/v1/chat")
def chat(request: ChatRequest, token=Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    return [client.responses.create(model="gpt-4o-mini", input=request.message).output_text]


async def app(scope, receive, send):
    async def with_headers(message):
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            headers["X-Frame-Options"] = "DENY"
            headers["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains; preload"
            if headers.get("content-type", "").startswith("text/html"):
                headers["Content-Security-Policy"] = "default-src 'self'"
        await send(message)

    await api(scope, receive, with_headers if scope["type"] == "http" else send)
