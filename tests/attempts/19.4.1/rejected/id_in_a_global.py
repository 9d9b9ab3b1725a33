# must fail: request-id-overlap
# the ID is a global that the next request overwrites
import json
import logging
import os
import sys
import uuid
from datetime import datetime, timezone

from fastapi import FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

class Current:
    value = None

    def set(self, value):
        self.value = value

    def get(self):
        return self.value


request_id_var = Current()


class JsonFormatter(logging.Formatter):
    def format(self, record):
        entry = {
            "time": datetime.now(timezone.utc).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id_var.get(),
        }
        entry.update(getattr(record, "fields", {}))
        return json.dumps(entry)


handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(JsonFormatter())
logger = logging.getLogger("agent")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
logger.propagate = False

app = FastAPI()
client = AsyncOpenAI()
API_KEYS = os.environ.get("API_KEY", "dev-key-change-in-production").split(",")


class ChatRequest(BaseModel):
    message: str


@app.middleware("http")
async def add_request_id(request: Request, call_next):
    request_id_var.set(uuid.uuid4().hex[:12])
    logger.info("request started", extra={"fields": {"path": request.url.path}})
    response = await call_next(request)
    logger.info("request finished", extra={"fields": {"status": response.status_code}})
    response.headers["X-Request-ID"] = request_id_var.get()
    return response


@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str = Header(None)):
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    logger.info("chat", extra={"fields": {"message_preview": body.message[:100]}})
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    tokens = completion.usage.total_tokens if completion.usage else None
    logger.info("completed", extra={"fields": {"model": completion.model, "tokens": tokens}})
    return {"response": completion.choices[0].message.content}
