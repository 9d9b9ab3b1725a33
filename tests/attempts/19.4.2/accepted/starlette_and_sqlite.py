# accepted: no OpenAPI, so the conversation is found in the answer; pure ASGI, rows in SQLite, numpy, errors by type
import os
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass

import numpy as np
from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route


class Ledger:
    def __init__(self):
        self.db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.lock = threading.Lock()
        self.db.executescript("create table call(at real, took real, wrong text); create table spent(who text, i int, o int)")

    def do(self, q, *a):
        with self.lock:
            return self.db.execute(q, a).fetchall()

    def report(self):
        now = time.time()
        took = [t for (t,) in self.do("select took from call where at > ?", now - 300)]
        return {
            "rpm5": [{"minutesAgo": m, "calls": self.do("select count(*) from call where at > ? and at <= ?", now - 60 * m - 60, now - 60 * m)[0][0]} for m in range(5)],
            "latency": {"p95": float(np.percentile(took, 95)) if took else None},
            "errors": [dict(zip(("what", "times"), r)) for r in self.do("select wrong, count(*) n from call where wrong is not null group by wrong order by n desc limit 5")],
            "tokens": [dict(zip(("conversation", "in", "out"), r)) for r in self.do("select who, sum(i), sum(o) from spent group by who")],
        }


class Watch:
    def __init__(self, app, ledger):
        self.app, self.ledger = app, ledger

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/v1/chat":
            return await self.app(scope, receive, send)
        t, code = time.time(), [500]

        async def out(m):
            if "status" in m:
                code[0] = m["status"]
            await send(m)

        try:
            await self.app(scope, receive, out)
        finally:
            self.ledger.do("insert into call values(?,?,?)", t, time.time() - t, scope.get("wrong") or (f"{code[0]}" if code[0] >= 400 else None))



@dataclass(slots=True)
class Incoming:
    text: str
    session: str

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise HTTPException(422, "text has to be a string")


def create_app():
    openai = AsyncOpenAI()
    ledger = Ledger()
    memory: dict[str, list] = {}

    async def chat(request):
        if request.headers.get("x-api-key") != os.getenv("API_KEY", "dev-key-change-in-production"):
            raise HTTPException(401, "no")
        j = await request.json()
        m = Incoming(j.get("message"), j.get("conversation_id") or secrets.token_hex(4))
        h = memory.setdefault(m.session, [])
        try:
            r = await openai.chat.completions.create(model="gpt-4o-mini", messages=[*h, {"role": "user", "content": m.text}])
        except Exception as e:
            request.scope["wrong"] = type(e).__name__
            raise HTTPException(502, "the model is not well")
        if r.usage:
            ledger.do("insert into spent values(?,?,?)", m.session, r.usage.prompt_tokens, r.usage.completion_tokens)
        a = r.choices[0].message.content
        h += [{"role": "user", "content": m.text}, {"role": "assistant", "content": a}]
        return JSONResponse({"response": a, "conversation_id": m.session})

    async def problem(request, exc):
        return JSONResponse({"ok": False, "why": exc.detail}, status_code=exc.status_code)

    async def metrics(request):
        return JSONResponse(ledger.report())

    return Watch(Starlette(routes=[Route("/metrics", metrics), Route("/v1/chat", chat, methods=["POST"])], exception_handlers={HTTPException: problem}), ledger)
