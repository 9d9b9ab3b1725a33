# must fail: json-concurrent
# a line is written in pieces while other requests go on
import asyncio
import json
import os
import time
import uuid

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()
MODEL = "gpt-4o"
KEYS = os.getenv("API_KEY", "dev-key").split(",")


class ChatRequest(BaseModel):
    message: str


async def event(name, rid, **data):
    line = json.dumps({"ts": time.time(), "event": name, "ctx": {"rid": rid}, "data": data})
    print(line[:20], end="", flush=True)
    await asyncio.sleep(0.001)
    print(line[20:], flush=True)


@app.middleware("http")
async def time_requests(request: Request, call_next):
    request.state.rid = str(uuid.uuid4())
    await event("start", request.state.rid, path=request.url.path)
    start = time.time()
    response = await call_next(request)
    await event("end", request.state.rid, status=response.status_code, seconds=time.time() - start)
    return response


@app.post("/v1/chat")
async def chat(body: ChatRequest, request: Request, x_api_key: str = Header(default="")):
    rid = request.state.rid
    if x_api_key not in KEYS:
        raise HTTPException(401, "wrong key")
    await event("message", rid, text=body.message if len(body.message) <= 100 else body.message[:97] + "...")
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": body.message}]
    )
    usage = answer.usage
    await event("answer", rid, llm=answer.model, tokens_in=usage and usage.prompt_tokens, tokens_out=usage and usage.completion_tokens)
    return JSONResponse({"reply": answer.choices[0].message.content})
