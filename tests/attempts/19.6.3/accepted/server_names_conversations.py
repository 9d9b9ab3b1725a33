# accepted: the app alone names conversations, one for each message; the chapter's one price per 1,000 tokens; a deque
"""Cost dashboard: every chat is its own conversation, the id is made here and returned."""
import os
import uuid
from collections import defaultdict, deque
from datetime import datetime, timedelta, timezone

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

API_KEY = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
COST_PER_1K = {"gpt-4o-mini": 0.0004, "gpt-4o": 0.01, "gpt-4-turbo": 0.02}
MODEL = "gpt-4o-mini"
MONTHLY_BUDGET = float(os.getenv("MONTHLY_BUDGET", "50"))

app = FastAPI()
client = AsyncOpenAI()


class Message(BaseModel):
    message: str


class CostTracker:
    def __init__(self):
        self.records = deque(maxlen=100_000)

    def add(self, model, conversation_id, tokens):
        self.records.append((datetime.now(timezone.utc), model, conversation_id, tokens / 1000 * COST_PER_1K[model]))

    def _sum(self, index, since):
        totals = defaultdict(float)
        for record in self.records:
            if record[0] >= since:
                totals[record[index]] += record[3]
        return totals

    def dashboard(self):
        now = datetime.now(timezone.utc)
        day, month = now - timedelta(hours=24), now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        hours = []
        for back in range(23, -1, -1):
            start = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=back)
            spent = sum(r[3] for r in self.records if start <= r[0] < start + timedelta(hours=1))
            hours.append({"hour": start.isoformat(), "cost": round(spent, 6)})
        dearest = sorted(self._sum(2, month).items(), key=lambda item: -item[1])[:10]
        spent = sum(self._sum(1, month).values())
        daily = sum(self._sum(1, day).values())
        used = spent / MONTHLY_BUDGET * 100
        return {
            "hourly_spending": hours,
            "spending_by_model": [{"model": m, "cost": round(c, 6)} for m, c in self._sum(1, month).items()],
            "expensive_conversations": [{"id": c, "cost": round(v, 6)} for c, v in dearest],
            "projections": {"daily": round(daily, 6), "monthly": round(daily * 30, 6)},
            "budget_status": {
                "budget": MONTHLY_BUDGET,
                "spent": round(spent, 6),
                "used_percent": round(used, 6),
                "indicator": "🟢" if used < 70 else "🟡" if used < 100 else "🔴",
            },
        }


tracker = CostTracker()


def authorized(x_api_key: str = Header(...)):
    if x_api_key not in API_KEY:
        raise HTTPException(401, "Invalid API key")


@app.post("/v1/chat", dependencies=[Depends(authorized)])
async def chat(body: Message):
    conversation_id = f"conv_{uuid.uuid4().hex[:10]}"
    answer = await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": body.message}])
    tracker.add(MODEL, conversation_id, answer.usage.total_tokens)
    return {"response": answer.choices[0].message.content, "conversation_id": conversation_id}


@app.get("/costs", dependencies=[Depends(authorized)])
async def costs():
    return tracker.dashboard()
