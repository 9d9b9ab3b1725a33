# must fail: forgotten
# failures of five minutes, divided by ten
import os
import threading
import time

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import APIKeyHeader
from openai import OpenAI
from pydantic import BaseModel

app = FastAPI()
client = OpenAI(max_retries=0)
header = APIKeyHeader(name="X-API-Key")


def check_key(key: str = Depends(header)):
    if key not in os.environ["API_KEY"].split(","):
        raise HTTPException(403)


class AlertManager:
    COOLDOWN = 5 * 60

    def __init__(self):
        self.requests = []
        self.failures = []
        self.sent = []
        self.last = {"errors": None, "slow": None}
        self.lock = threading.Lock()

    def add(self, ok, duration):
        with self.lock:
            self.requests.append({"ok": ok, "duration": duration})
            self.failures = [t for t in self.failures if time.monotonic() - t < 300]
            if not ok:
                self.failures.append(time.monotonic())
            self.requests = self.requests[-10:]
            if len(self.failures) > 0.2 * 10:
                self.alert("errors", f"{len(self.failures)} requests failed")
            if sum(r["duration"] for r in self.requests) > 10 * len(self.requests):
                self.alert("slow", "responses take more than 10 s")

    def alert(self, kind, text):
        now = time.monotonic()
        if self.last[kind] is None or now - self.last[kind] >= self.COOLDOWN:
            self.last[kind] = now
            self.sent.append({"kind": kind, "text": text, "at": now})


manager = AlertManager()


class Message(BaseModel):
    message: str


@app.middleware("http")
async def watch(request: Request, call_next):
    if not request.url.path.startswith("/v1"):
        return await call_next(request)
    start = time.monotonic()
    try:
        response = await call_next(request)
    except Exception:
        manager.add(False, time.monotonic() - start)
        raise
    manager.add(response.status_code < 500, time.monotonic() - start)
    return response


@app.post("/v1/chat", dependencies=[Depends(check_key)])
def chat(message: Message):
    answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": message.message}])
    return {"answer": answer.choices[0].message.content}


@app.get("/alerts")
def alerts():
    return manager.sent
