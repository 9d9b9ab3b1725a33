# must fail: projection
# What the last day cost is called the month's cost.
import os
import asyncio
import uuid
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Dict

from dotenv import load_dotenv
from fastapi import FastAPI, Header
from openai import AsyncOpenAI
from pydantic import BaseModel
from typing import Optional

load_dotenv()
app = FastAPI()
client = AsyncOpenAI(api_key=os.getenv("OPENAI_API_KEY"))
PRICING = {"gpt-4o-mini": {"input": 0.15, "output": 0.60}, "gpt-4o": {"input": 2.5, "output": 10.0}}
MONTHLY_BUDGET = float(os.getenv("MONTHLY_BUDGET", "100"))


class CostDashboard:
    def __init__(self):
        self.records = []
        self.lock = asyncio.Lock()

    async def record(self, model, conversation_id, tin, tout):
        p = PRICING.get(model) or PRICING["gpt-4o-mini"]
        cost = tin / 1e6 * p["input"] + tout / 1e6 * p["output"]
        async with self.lock:
            self.records.append({"time": datetime.now(), "model": model, "conv": conversation_id, "cost": cost})

    async def get_budget_status(self):
        now = datetime.now()
        spent = sum(r["cost"] for r in self.records if r["time"].month == now.month and r["time"].year == now.year)
        pct = spent / MONTHLY_BUDGET * 100
        return {"budget": MONTHLY_BUDGET, "spent": spent, "remaining": MONTHLY_BUDGET - spent, "percent_used": round(pct, 2),
                "indicator": "🟢" if pct < 75 else "🟡" if pct < 100 else "🔴"}

    async def get_hourly_spending(self, hours=24):
        now = datetime.now()
        out = []
        for h in range(hours - 1, -1, -1):
            start = (now - timedelta(hours=h)).replace(minute=0, second=0, microsecond=0)
            end = start + timedelta(hours=1)
            out.append({"hour": start.strftime("%Y-%m-%d %H:00"), "cost": sum(r["cost"] for r in self.records if start <= r["time"] < end)})
        return out

    async def get_spending_by_model(self):
        d = defaultdict(float)
        for r in self.records:
            d[r["model"]] += r["cost"]
        return dict(d)

    async def get_expensive_conversations(self, limit=10):
        d = defaultdict(float)
        for r in self.records:
            d[r["conv"]] += r["cost"]
        return [{"conversation_id": c, "cost": v} for c, v in sorted(d.items(), key=lambda x: -x[1])[:limit]]

    async def get_projected_monthly(self):
        day = datetime.now() - timedelta(hours=24)
        last = sum(r["cost"] for r in self.records if r["time"] > day)
        return {"daily": last, "projected_monthly": last}

    async def get_full_dashboard(self) -> Dict:
        return {
            "budget_status": await self.get_budget_status(),
            "hourly_spending": await self.get_hourly_spending(24),
            "spending_by_model": await self.get_spending_by_model(),
            "expensive_conversations": await self.get_expensive_conversations(10),
            "projections": await self.get_projected_monthly(),
        }


dashboard = CostDashboard()


class ChatRequest(BaseModel):
    message: str
    conversation_id: Optional[str] = None


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header(None)):
    conv = request.conversation_id or str(uuid.uuid4())
    model = "gpt-4o-mini"
    r = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": request.message}])
    await dashboard.record(model, conv, r.usage.prompt_tokens, r.usage.completion_tokens)
    return {"response": r.choices[0].message.content, "conversation_id": conv}


@app.get("/costs")
async def costs():
    return await dashboard.get_full_dashboard()
