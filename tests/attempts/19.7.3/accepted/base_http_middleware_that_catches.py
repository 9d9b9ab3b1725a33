# accepted: BaseHTTPMiddleware that answers unhandled errors itself, HSTS over HTTPS only, pages switched off
import logging
import os

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi import Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

API_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


logger = logging.getLogger(__name__)


class SecurityHeadersMiddleware(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        try:
            response = await call_next(request)
        except Exception:
            logger.exception("unhandled")
            response = JSONResponse({"error": "internal error"}, status_code=500)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "deny"
        proto = request.headers.get("x-forwarded-proto", request.url.scheme)
        if proto == "https":
            response.headers["Strict-Transport-Security"] = "max-age=63072000; includeSubDomains; preload"
        return response


app = FastAPI(docs_url=None, redoc_url=None)
app.add_middleware(SecurityHeadersMiddleware)

client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
