# accepted: an own logger class on stderr, plain def in worker threads, contextvars by dependency, nested objects, Bearer
import contextvars
import datetime
import json
import os
import sys
import uuid

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import OpenAI, OpenAIError
from pydantic import BaseModel

current = contextvars.ContextVar("request_id", default=None)


class JsonLog:
    def __init__(self, stream):
        self.stream = stream

    def __call__(self, event, severity="INFO", **data):
        entry = {
            "ts": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "severity": severity,
            "event": event,
            "context": {"requestId": current.get()},
            "data": data,
        }
        self.stream.write(json.dumps(entry) + "\n")
        self.stream.flush()


log = JsonLog(sys.stderr)
app = FastAPI()
client = OpenAI()


class Ask(BaseModel):
    message: str


async def with_id():
    current.set(uuid.uuid4().hex[:12])


async def with_key(token: HTTPAuthorizationCredentials = Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)


@app.post("/v1/chat", dependencies=[Depends(with_id), Depends(with_key)])
def chat(ask: Ask):
    log("chat.begin", preview=ask.message[:100])
    try:
        answer = client.responses.create(model="gpt-4o-mini", input=ask.message)
    except OpenAIError as error:
        log("chat.failed", "ERROR", reason=type(error).__name__)
        raise HTTPException(502)
    used = answer.usage.total_tokens if answer.usage else None
    log("chat.end", llm={"name": answer.model, "usage": {"total": used}})
    return {"text": answer.output_text}
