# accepted: one class with a threading.Condition, sync endpoints, the agent asked in daemon threads: who gives up leaves them behind
import concurrent.futures
import os
import signal
import threading

from fastapi import FastAPI, HTTPException, Request
from openai import OpenAI
from pydantic import BaseModel


class Chat(BaseModel):
    message: str


class GracefulService:
    TIMEOUT = 30

    def __init__(self):
        self.stopping = False
        self.given_up = threading.Event()
        self.active = 0
        self.changed = threading.Condition()
        self.client = OpenAI(max_retries=0, timeout=60)
        self.handlers = {}

    def start(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.handlers[number] = signal.signal(number, self.on_signal)

    def on_signal(self, number, frame):
        if not self.stopping:
            self.stopping = True
            threading.Thread(target=self.drain, args=(number, frame), daemon=True).start()

    def drain(self, number, frame):
        with self.changed:
            self.changed.wait_for(lambda: self.active == 0, timeout=self.TIMEOUT)
        self.given_up.set()
        self.handlers[number](number, frame)

    def close(self):
        self.client.close()

    def answer(self, message):
        with self.changed:
            if self.stopping:
                raise HTTPException(503, "Server is shutting down")
            self.active += 1
        try:
            future = concurrent.futures.Future()
            threading.Thread(target=self.ask, args=(message, future), daemon=True).start()
            while not future.done():
                if self.given_up.wait(0.02):
                    raise HTTPException(503, "Server was shut down")
            return future.result()
        finally:
            with self.changed:
                self.active -= 1
                self.changed.notify_all()

    def ask(self, message, future):
        try:
            completion = self.client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": message}]
            )
            future.set_result(completion.choices[0].message.content)
        except Exception as error:
            future.set_exception(error)


service = GracefulService()
app = FastAPI(on_startup=[service.start], on_shutdown=[service.close])


@app.post("/v1/chat")
def chat(body: Chat, request: Request):
    if request.headers.get("X-API-Key") not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    return {"response": service.answer(body.message)}
