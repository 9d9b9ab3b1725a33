# accepted: the times are rows of an in-memory SQLite table; create_app() stands beside the module-level app
import math
import os
import sqlite3
import time

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel


class ChatRequest(BaseModel):
    message: str


class RequestLog:
    def __init__(self, path=":memory:"):
        self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.db.execute("CREATE TABLE requests (api_key TEXT NOT NULL, at REAL NOT NULL)")
        self.db.execute("CREATE INDEX by_key ON requests (api_key, at)")

    def add(self, api_key, limit=10, window=60):
        """Insert one row and return None, or return the seconds until there is room for it."""
        now = time.time()
        self.db.execute("DELETE FROM requests WHERE at <= ?", (now - window,))
        count, oldest = self.db.execute(
            "SELECT count(*), min(at) FROM requests WHERE api_key = ?", (api_key,)
        ).fetchone()
        if count >= limit:
            return math.ceil(oldest + window - now)
        self.db.execute("INSERT INTO requests VALUES (?, ?)", (api_key, now))
        return None


def create_app():
    app = FastAPI()
    client = AsyncOpenAI()
    log = RequestLog()
    keys = os.getenv("API_KEY", "dev-key-change-in-production").split(",")

    @app.post("/v1/chat")
    async def chat(body: ChatRequest, x_api_key: str | None = Header(default=None)):
        if x_api_key not in keys:
            raise HTTPException(status_code=401, detail="Invalid API key")
        wait = log.add(x_api_key)
        if wait is not None:
            raise HTTPException(status_code=429, detail="Rate limit", headers={"Retry-After": str(wait)})
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
        return {"response": completion.choices[0].message.content}

    return app


app = create_app()
