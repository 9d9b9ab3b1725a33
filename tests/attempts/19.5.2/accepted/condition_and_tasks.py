"""No queue object at all: a deque, a condition, and one dispatcher that starts a task when a slot is free."""

import asyncio
import collections
import contextlib
import os
import secrets

import fastapi
import openai
import pydantic

SLOTS = 4


class Message(pydantic.BaseModel):
    message: str = pydantic.Field(min_length=1)
    conversation_id: str | None = None


class Line:
    def __init__(self):
        self.client = openai.AsyncOpenAI(timeout=20)
        self.entries = {}
        self.line = collections.deque()
        self.free = SLOTS
        self.changed = asyncio.Condition()
        self.tasks = set()

    async def dispatch(self):
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.line and self.free)
                token = self.line.popleft()
                self.free -= 1
            task = asyncio.create_task(self.answer(token))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def answer(self, token):
        entry = self.entries[token]
        entry["phase"] = "running"
        try:
            stream = await self.client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": entry["message"]}], stream=True
            )
            parts = []
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    parts.append(chunk.choices[0].delta.content)
            entry.update(phase="finished", reply="".join(parts))
        except openai.OpenAIError:
            entry.update(phase="failed")
        finally:
            async with self.changed:
                self.free += 1
                self.changed.notify()


@contextlib.asynccontextmanager
async def lifespan(app):
    app.state.line = Line()
    dispatcher = asyncio.create_task(app.state.line.dispatch())
    yield
    dispatcher.cancel()


def create_app():
    app = fastapi.FastAPI(lifespan=lifespan)
    keys = set(os.environ.get("API_KEY", "dev").split(","))

    async def known(x_api_key: str = fastapi.Header("")):
        if x_api_key not in keys:
            raise fastapi.HTTPException(403)

    @app.post("/v1/chat", dependencies=[fastapi.Depends(known)])
    async def chat(body: Message):
        line = app.state.line
        token = secrets.token_urlsafe(9)
        line.entries[token] = {"message": body.message, "phase": "waiting", "reply": None}
        async with line.changed:
            line.line.append(token)
            line.changed.notify()
        return {"data": {"id": token, "see": f"/status/{token}"}}

    @app.get("/status/{token}", dependencies=[fastapi.Depends(known)])
    async def status(token: str):
        line = app.state.line
        if token not in line.entries:
            raise fastapi.HTTPException(410)
        place = line.line.index(token) if token in line.line else None
        entry = line.entries[token]
        return {"data": {"phase": entry["phase"], "place": place, "reply": entry["reply"]}}

    return app
