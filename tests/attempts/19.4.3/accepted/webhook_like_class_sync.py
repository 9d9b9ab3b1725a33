# accepted: sync def, an alert manager class with a thread lock, the alerts on stderr as plain sentences, Bearer token
import os
import sys
import threading
import time
from collections import deque

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from openai import OpenAI, OpenAIError
from pydantic import BaseModel


class Alerts:
    def __init__(self):
        self.lock = threading.Lock()
        self.last_ten = deque(maxlen=10)
        self.sent = {}

    def record(self, ok, seconds):
        with self.lock:
            self.last_ten.append((ok, seconds))
            failed = sum(not ok for ok, _ in self.last_ten) / len(self.last_ten)
            mean = sum(s for _, s in self.last_ten) / len(self.last_ten)
            if len(self.last_ten) == 10 and failed > 0.2:
                self.send("error rate", f"{failed:.0%} of the last ten requests failed")
            if mean > 10:
                self.send("response time", f"{mean:.1f} seconds on average")

    def send(self, issue, text):
        now = time.monotonic()
        if issue in self.sent and now - self.sent[issue] < 300:
            return
        self.sent[issue] = now
        print(f"ALERT ({issue}): {text}", file=sys.stderr, flush=True)


app = FastAPI()
alerts = Alerts()
bearer = HTTPBearer()
client = OpenAI(max_retries=0, timeout=120)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
def chat(request: ChatRequest, token=Depends(bearer)):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    began = time.monotonic()
    try:
        text = client.responses.create(model="gpt-4o-mini", input=request.message).output_text
    except OpenAIError:
        alerts.record(False, time.monotonic() - began)
        raise HTTPException(503, "The model is not available")
    alerts.record(True, time.monotonic() - began)
    return {"response": text}
