# accepted: a BaseHTTPMiddleware that looks at the body before the endpoint, 422, errors as a list of objects
import json
import os

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import OpenAI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware

LIMIT = 1000


class MessageValidation(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        if request.method == "POST" and request.url.path.rstrip("/") == "/v1/chat":
            problem = self.problem(await request.body())
            if problem:
                return JSONResponse({"errors": [{"field": "message", "problem": problem}]}, 422)
        return await call_next(request)

    def problem(self, raw: bytes):
        try:
            body = json.loads(raw)
        except ValueError:
            return "The body is not valid JSON."
        if not isinstance(body, dict) or not isinstance(body.get("message"), str):
            return "A field 'message' with text is required."
        if not body["message"].strip():
            return "The message is empty; please write something."
        if len(body["message"]) > LIMIT:
            return f"The message has {len(body['message'])} characters, at most {LIMIT} are allowed."


def authorised(x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"]:
        raise HTTPException(401, "Invalid API key")


app = FastAPI(dependencies=[Depends(authorised)])
app.add_middleware(MessageValidation)


@app.post("/v1/chat")
async def chat(request: Request):
    body = await request.json()
    completion = await run_in_threadpool(
        OpenAI().chat.completions.create,
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": body["message"]}],
    )
    return JSONResponse([completion.choices[0].message.content])
