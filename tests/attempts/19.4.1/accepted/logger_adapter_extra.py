# accepted: a LoggerAdapter per request with extra=, BaseHTTPMiddleware, an X-Request-ID that is taken over, one last line
import json
import logging
import os
import time
import uuid

from fastapi import FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel
from starlette.middleware.base import BaseHTTPMiddleware

STANDARD = set(vars(logging.makeLogRecord({})))


class AsJson(logging.Formatter):
    def format(self, record):
        extra = {k: v for k, v in vars(record).items() if k not in STANDARD}
        line = {"time": self.formatTime(record), "level": record.levelname, "msg": record.getMessage(), **extra}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


handler = logging.StreamHandler()
handler.setFormatter(AsJson())
logging.getLogger("agent").addHandler(handler)
logging.getLogger("agent").setLevel(logging.INFO)
for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
    logging.getLogger(name).handlers = [handler]
    logging.getLogger(name).propagate = False


class Trace(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next):
        id = request.headers.get("X-Request-ID") or str(uuid.uuid4())
        request.state.log = logging.LoggerAdapter(logging.getLogger("agent"), {"request_id": id})
        began = time.perf_counter()
        response = await call_next(request)
        extra = {"request_id": id, "status": response.status_code, "ms": (time.perf_counter() - began) * 1000}
        logging.getLogger("agent").info("request finished", extra=extra)
        response.headers["X-Request-ID"] = id
        return response


app = FastAPI()
app.add_middleware(Trace)
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(body: ChatRequest, request: Request, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "no")
    id = request.state.log.extra["request_id"]
    result = await client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": body.message}])
    usage = result.usage
    said = {"message_preview": body.message[:100], "model": result.model}
    if usage is not None:
        said |= {"tokens_in": usage.prompt_tokens, "tokens_out": usage.completion_tokens}
    logging.getLogger("agent").info("chat answered", extra={"request_id": id, **said})
    return {"response": result.choices[0].message.content}
