# accepted: every call is a row in SQLite and every view a query; amounts as text, only hours with spending, cents
import calendar
import os
import sqlite3
import time
import uuid

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import OpenAI

db = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
db.execute("create table calls (at real, model text, conversation text, cost real)")
client = OpenAI()
BUDGET = 20.0


def create_app():
    app = FastAPI()

    def allowed(request):
        return request.headers.get("x-api-key", "") in os.environ["API_KEY"].split(",")

    @app.post("/v1/chat")
    async def chat(request: Request):
        if not allowed(request):
            return JSONResponse({"error": "forbidden"}, 403)
        body = await request.json()
        conversation = body.get("conversation_id") or uuid.uuid4().hex
        answer = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": body["message"]}])
        cost = answer.usage.prompt_tokens * 2.5e-6 + answer.usage.completion_tokens * 10e-6
        db.execute("insert into calls values (?, ?, ?, ?)", (time.time(), answer.model, conversation, cost))
        return {"reply": answer.choices[0].message.content, "conversation_id": conversation}

    @app.get("/v1/costs")
    async def costs(request: Request):
        if not allowed(request):
            return JSONResponse({"error": "forbidden"}, 403)
        now = time.time()
        today = time.gmtime(now)
        month = calendar.timegm((today.tm_year, today.tm_mon, 1, 0, 0, 0))
        days = calendar.monthrange(today.tm_year, today.tm_mon)[1]
        hours = db.execute(
            "select cast(at / 3600 as integer) as hour, sum(cost) from calls where at > ? group by hour", (now - 86400,)
        ).fetchall()
        models = db.execute("select model, sum(cost), count(*) from calls group by model").fetchall()
        top = db.execute(
            "select conversation, sum(cost) as total from calls group by conversation order by total desc limit 10"
        ).fetchall()
        spent, first = db.execute("select coalesce(sum(cost), 0), min(at) from calls where at >= ?", (month,)).fetchone()
        per_day = spent / max((now - (first or now)) / 86400, 1 / 24)
        filled = min(10, int(10 * spent / BUDGET))
        return {
            "by_hour": [{"hour": hour * 3600, "cents": 100 * cost} for hour, cost in hours],
            "by_model": {model: {"usd": f"${cost:.6f}", "calls": calls} for model, cost, calls in models},
            "top_conversations": {name[:12]: f"${cost:.6f}" for name, cost in top},
            "forecast": {"this_month_usd": per_day * days},
            "budget": {"limit": BUDGET, "used": spent, "bar": "#" * filled + "." * (10 - filled)},
        }

    return app
