# accepted: a chat that calls its conversations sessions; views by query over SQLite, series as Chart.js wants them
"""sqlite, chart.js-shaped output, strings, sync"""
import sqlite3, time, uuid
from fastapi import FastAPI, Body
from openai import OpenAI

app = FastAPI()
con = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
con.execute("create table spend(ts real, model text, session text, micro integer)")
BUDGET = 20.0
PRICE = {"gpt-4o-mini": (0.15, 0.6)}


@app.post("/chat")
def chat(message: str = Body(...), session_id: str | None = Body(None)):
    sid = session_id or uuid.uuid4().hex[:12]
    r = OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": message}])
    p = PRICE["gpt-4o-mini"]
    con.execute("insert into spend values(?,?,?,?)", (time.time(), "gpt-4o-mini", sid, round((r.usage.prompt_tokens * p[0] + r.usage.completion_tokens * p[1]) * 1000)))
    return {"answer": r.choices[0].message.content, "session_id": sid}


def usd(nano):
    return round((nano or 0) / 1e9, 9)


@app.get("/costs")
def costs():
    now = time.time()
    rows = dict(con.execute("select cast((?-ts)/3600 as integer) h, sum(micro) from spend where ts>? group by h", (now, now - 86400)))
    hourly = [usd(rows.get(h, 0)) for h in range(23, -1, -1)]
    models = con.execute("select model, sum(micro) from spend group by model order by 2 desc").fetchall()
    sess = con.execute("select session, sum(micro), count(*) from spend group by session order by 2 desc limit 10").fetchall()
    month = con.execute("select sum(micro) from spend where ts>?", (now - 30 * 86400,)).fetchone()[0]
    day = con.execute("select sum(micro) from spend where ts>?", (now - 86400,)).fetchone()[0]
    pct = usd(month) / BUDGET * 100
    return {
        "status": "success",
        "charts": {
            "hourly": {"labels": [f"-{h}h" for h in range(23, -1, -1)], "datasets": [{"label": "USD", "data": hourly}]},
            "models": {"labels": [m[0] for m in models], "datasets": [{"data": [usd(m[1]) for m in models]}]},
        },
        "tables": {"top_sessions": [{"session_id": s, "usd": usd(m), "requests": n} for s, m, n in sess]},
        "projection": {"monthly_usd": round(usd(day) * 30, 6)},
        "budget": {"limit": BUDGET, "spent": usd(month), "pct": pct, "color": "green" if pct < 50 else "orange" if pct < 90 else "red"},
    }
