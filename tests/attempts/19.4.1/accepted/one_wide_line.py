# accepted: one line a request, on standard error, from a thread of its own; the ID is called "request"; Starlette alone
import os, secrets
from dataclasses import dataclass

from openai import AsyncOpenAI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

import json, queue, sys, threading, time, traceback

BOX: queue.SimpleQueue = queue.SimpleQueue()


def writer():
    while True:
        sys.stderr.write(json.dumps(BOX.get()) + "\n")
        sys.stderr.flush()


threading.Thread(target=writer, daemon=True).start()


class Event(dict):
    """one wide line per request"""


class Wide:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        ev = scope["event"] = Event(time=time.time(), severity="info", request=secrets.token_hex(8), verb=scope["method"], url=scope["path"])

        async def out(m):
            if m["type"] == "http.response.start":
                ev["status"] = m["status"]
            await send(m)

        try:
            await self.app(scope, receive, out)
        except BaseException as e:
            ev.update(severity="error", error=repr(e), stack=traceback.format_exc())
            await JSONResponse({"ok": False, "why": "our fault", "request": ev["request"]}, 500)(scope, receive, out)
        finally:
            ev["took"] = time.time() - ev["time"]
            BOX.put(ev)



@dataclass(slots=True)
class Incoming:
    text: str
    session: str

    def __post_init__(self):
        if not isinstance(self.text, str):
            raise HTTPException(422, "text has to be a string")


def create_app():
    openai = AsyncOpenAI()
    memory: dict[str, list] = {}

    async def chat(request):
        if request.headers.get("x-api-key") != os.getenv("API_KEY", "dev-key-change-in-production"):
            raise HTTPException(401, "no")
        j = await request.json()
        m = Incoming(j.get("message"), j.get("conversation_id") or secrets.token_hex(4))
        h = memory.setdefault(m.session, [])
        request.scope["event"]["said"] = m.text[:100]
        r = await openai.chat.completions.create(model="gpt-4o-mini", messages=[*h, {"role": "user", "content": m.text}])
        request.scope["event"]["llm"] = {"name": r.model, "tokens": r.usage and r.usage.total_tokens}
        a = r.choices[0].message.content
        h += [{"role": "user", "content": m.text}, {"role": "assistant", "content": a}]
        return JSONResponse({"response": a, "conversation_id": m.session})

    async def problem(request, exc):
        return JSONResponse({"ok": False, "why": exc.detail}, status_code=exc.status_code)

    return Wide(Starlette(routes=[Route("/v1/chat", chat, methods=["POST"])], exception_handlers={HTTPException: problem}))
