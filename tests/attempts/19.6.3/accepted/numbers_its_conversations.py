# accepted: the app numbers its conversations and refuses those that it does not know; sums of rows, a lamp
"""Cost dashboard: the server starts conversations (numbered), a client continues one; unknown ones are refused."""
import itertools
import os
import threading
import time
from datetime import datetime, timezone

from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

RATE = {"gpt-4o-mini": (0.15e-6, 0.6e-6)}
BUDGET_USD = 25
app, client, lock, numbers = FastAPI(), OpenAI(), threading.Lock(), itertools.count(1)
conversations: dict[int, list] = {}
spent: list[tuple[float, str, int, float]] = []


class Ask(BaseModel):
    message: str
    conversation_id: int | None = None


@app.post("/v1/chat")
def chat(ask: Ask, x_api_key: str = Header()):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "Invalid API key")
    with lock:
        number = ask.conversation_id or next(numbers)
        if ask.conversation_id and number not in conversations:
            raise HTTPException(404, "No such conversation")
        history = conversations.setdefault(number, [])
    history.append({"role": "user", "content": ask.message})
    r = client.chat.completions.create(model="gpt-4o-mini", messages=history[-1:])
    history.append({"role": "assistant", "content": r.choices[0].message.content})
    cost = r.usage.prompt_tokens * RATE["gpt-4o-mini"][0] + r.usage.completion_tokens * RATE["gpt-4o-mini"][1]
    spent.append((time.time(), "gpt-4o-mini", number, cost))
    return {"response": r.choices[0].message.content, "conversation_id": number}


def totals(index, rows):
    out = {}
    for row in rows:
        out[row[index]] = out.get(row[index], 0) + row[3]
    return out


@app.get("/costs")
def costs():
    now = time.time()
    hours = {}
    for back in reversed(range(24)):
        start = (now // 3600 - back) * 3600
        hours[datetime.fromtimestamp(start, timezone.utc).strftime("%d %b %H:00")] = sum(r[3] for r in spent if start <= r[0] < start + 3600)
    week = [r for r in spent if r[0] > now - 7 * 86400]
    days = max(1 / 24, (now - week[0][0]) / 86400) if week else 1
    month = sum(r[3] for r in week) / days * 30
    used = sum(r[3] for r in spent if r[0] > now - 30 * 86400)
    share = used / BUDGET_USD
    return {
        "hours": hours,
        "models": totals(1, spent),
        "conversations": [{"conversation": c, "usd": v} for c, v in sorted(totals(2, spent).items(), key=lambda x: x[1], reverse=True)[:10]],
        "projected_month_usd": month,
        "budget": {"limit": BUDGET_USD, "used": used, "share": share, "lamp": ["green", "yellow", "red"][min(2, int(share * 2))]},
    }
