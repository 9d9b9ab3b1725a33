# accepted: Authorization: Bearer, a limiter class as a yield dependency, monotonic deques, the responses API
import collections
import math
import os
import threading
import time
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import OpenAI
from pydantic import BaseModel


class Limiter:
    def __init__(self, limit=10, window=60):
        self.limit, self.window = limit, window
        self.hits = collections.defaultdict(collections.deque)
        self.lock = threading.Lock()

    def __call__(self, credentials: Annotated[HTTPAuthorizationCredentials, Security(HTTPBearer())]):
        if credentials.credentials not in os.environ["API_KEY"].split(","):
            raise HTTPException(401, "no")
        with self.lock:
            hits, now = self.hits[credentials.credentials], time.monotonic()
            while hits and now - hits[0] >= self.window:
                hits.popleft()
            if len(hits) >= self.limit:
                after = math.ceil(hits[0] + self.window - now)
                raise HTTPException(429, {"retry": after}, {"Retry-After": str(after)})
            hits.append(now)
        yield credentials.credentials


app = FastAPI()
limited = Limiter()
client = OpenAI()


class Ask(BaseModel):
    message: str


@app.post("/v1/chat")
def chat(ask: Ask, who: Annotated[str, Depends(limited)]):
    return PlainTextResponse(client.responses.create(model="gpt-4o", input=ask.message).output_text)
