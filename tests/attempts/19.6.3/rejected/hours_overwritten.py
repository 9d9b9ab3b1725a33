# must fail: by-hour
# Each call replaces what its hour has cost so far; only the number of requests adds up.
"""Exercise 3 (19.6): cost dashboard."""
import asyncio
import calendar
import os
import uuid
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Dict, List, Optional

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel

PRICING = {"gpt-4o-mini": {"input": 0.00015, "output": 0.0006}, "gpt-4o": {"input": 0.0025, "output": 0.01}}


@dataclass
class CostEntry:
    timestamp: datetime
    model: str
    conversation_id: str
    input_tokens: int
    output_tokens: int
    cost: float


class CostDashboard:
    def __init__(self, monthly_budget: float = 100.0):
        self.monthly_budget = monthly_budget
        self.entries: List[CostEntry] = []
        self._lock = asyncio.Lock()

    async def record(self, model: str, conversation_id: str, usage):
        p = PRICING[model]
        cost = usage.prompt_tokens / 1000 * p["input"] + usage.completion_tokens / 1000 * p["output"]
        async with self._lock:
            self.entries.append(CostEntry(datetime.now(), model, conversation_id, usage.prompt_tokens, usage.completion_tokens, cost))

    def _month(self):
        now = datetime.now()
        return [e for e in self.entries if (e.timestamp.year, e.timestamp.month) == (now.year, now.month)]

    async def get_budget_status(self) -> Dict:
        spent = sum(e.cost for e in self._month())
        percent = spent / self.monthly_budget * 100
        filled = min(20, int(percent / 5))
        status = "OK" if percent < 75 else "WARNING" if percent < 100 else "OVER BUDGET"
        return {
            "monthly_budget": self.monthly_budget,
            "spent": round(spent, 6),
            "remaining": round(self.monthly_budget - spent, 6),
            "percent_used": round(percent, 4),
            "status": status,
            "progress_bar": "█" * filled + "░" * (20 - filled),
        }

    async def get_hourly_spending(self, hours: int = 24) -> List[Dict]:
        now = datetime.now().replace(minute=0, second=0, microsecond=0)
        totals = defaultdict(lambda: {"cost": 0.0, "requests": 0})
        for e in self.entries:
            hour = e.timestamp.replace(minute=0, second=0, microsecond=0)
            totals[hour]["cost"] = e.cost
            totals[hour]["requests"] += 1
        return [
            {"hour": (h := now - timedelta(hours=i)).strftime("%Y-%m-%d %H:00"), "cost": round(totals[h]["cost"], 6), "requests": totals[h]["requests"]}
            for i in range(hours - 1, -1, -1)
        ]

    async def get_spending_by_model(self) -> Dict:
        out = defaultdict(lambda: {"cost": 0.0, "requests": 0, "tokens": 0})
        for e in self.entries:
            out[e.model]["cost"] += e.cost
            out[e.model]["requests"] += 1
            out[e.model]["tokens"] += e.input_tokens + e.output_tokens
        return out

    async def get_expensive_conversations(self, limit: int = 10) -> List[Dict]:
        totals = defaultdict(lambda: [0.0, 0])
        for e in self.entries:
            totals[e.conversation_id][0] += e.cost
            totals[e.conversation_id][1] += 1
        ranked = sorted(totals.items(), key=lambda kv: kv[1][0], reverse=True)[:limit]
        return [{"rank": i, "conversation_id": c, "total_cost": round(v[0], 6), "messages": v[1]} for i, (c, v) in enumerate(ranked, 1)]

    async def get_projected_monthly(self) -> Dict:
        now = datetime.now()
        days = calendar.monthrange(now.year, now.month)[1]
        last_24h = sum(e.cost for e in self.entries if e.timestamp > now - timedelta(hours=24))
        return {"daily_average": round(last_24h, 6), "projected_monthly": round(last_24h * days, 4)}

    async def get_full_dashboard(self) -> Dict:
        return {
            "generated_at": datetime.now().isoformat(),
            "budget_status": await self.get_budget_status(),
            "hourly_spending": await self.get_hourly_spending(24),
            "spending_by_model": await self.get_spending_by_model(),
            "expensive_conversations": await self.get_expensive_conversations(10),
            "projections": await self.get_projected_monthly(),
        }


dashboard = CostDashboard()
client = AsyncOpenAI()
app = FastAPI()


class ChatRequest(BaseModel):
    message: str
    conversation_id: Optional[str] = None


def verify(k: str = Depends(APIKeyHeader(name="X-API-Key"))):
    if k != os.getenv("API_KEY", "dev-key-change-in-production"):
        raise HTTPException(401, "Invalid API key")


@app.post("/v1/chat", dependencies=[Depends(verify)])
async def chat(req: ChatRequest):
    cid = req.conversation_id or str(uuid.uuid4())
    model = "gpt-4o-mini" if len(req.message) < 200 else "gpt-4o"
    r = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": req.message}])
    await dashboard.record(model, cid, r.usage)
    return {"response": r.choices[0].message.content, "conversation_id": cid}


@app.get("/costs", dependencies=[Depends(verify)])
async def costs():
    return await dashboard.get_full_dashboard()
