# must fail: by-hour, by-model, output-price, top-ten, dearest-first, projection, projection-follows, only-a-day, budget, indicator
# The dashboard exists, and nobody can ask for it.
import os
import uuid
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Dict

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

PRICES = {"gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.50, 10.00)}
BUDGET = float(os.getenv("MONTHLY_BUDGET", "50"))


class CostDashboard:
    def __init__(self):
        self.hourly = defaultdict(float)
        self.models = defaultdict(float)
        self.conversations = defaultdict(float)
        self.started = datetime.now()

    def add(self, model, usage, conversation_id):
        price_in, price_out = PRICES[model]
        cost = (usage.prompt_tokens * price_in + usage.completion_tokens * price_out) / 1_000_000
        self.hourly[datetime.now().strftime("%Y-%m-%d %H:00")] += cost
        self.models[model] += cost
        self.conversations[conversation_id] += cost

    @property
    def total(self):
        return sum(self.models.values())

    async def get_budget_status(self):
        percent = self.total / BUDGET * 100
        return {
            "budget": BUDGET,
            "spent": round(self.total, 6),
            "percent_used": round(percent, 4),
            "indicator": "\U0001f7e2" if percent < 80 else "\U0001f534",
        }

    async def get_hourly_spending(self, hours):
        now = datetime.now()
        labels = [(now - timedelta(hours=h)).strftime("%Y-%m-%d %H:00") for h in range(hours - 1, -1, -1)]
        return {"labels": labels, "values": [round(self.hourly.get(label, 0.0), 6) for label in labels]}

    async def get_spending_by_model(self):
        return {"labels": list(self.models), "values": list(self.models.values())}

    async def get_expensive_conversations(self, limit):
        top = sorted(self.conversations.items(), key=lambda item: -item[1])[:limit]
        return [{"conversation_id": name, "cost": cost} for name, cost in top]

    async def get_projected_monthly(self):
        hours = max((datetime.now() - self.started).total_seconds() / 3600, 1)
        return {"hourly_average": self.total / hours, "projected_monthly": self.total / hours * 24 * 30}

    async def get_full_dashboard(self) -> Dict:
        return {
            "budget_status": await self.get_budget_status(),
            "hourly_spending": await self.get_hourly_spending(24),
            "spending_by_model": await self.get_spending_by_model(),
            "expensive_conversations": await self.get_expensive_conversations(10),
            "projections": await self.get_projected_monthly(),
        }


app = FastAPI()
client = AsyncOpenAI()
dashboard = CostDashboard()


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


def verify(x_api_key: str = Header(None)):
    if x_api_key not in os.getenv("API_KEY", "dev-key-change-in-production").split(","):
        raise HTTPException(401, "bad key")


@app.post("/v1/chat", dependencies=[Depends(verify)])
async def chat(request: ChatRequest):
    conversation_id = request.conversation_id or str(uuid.uuid4())
    result = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    dashboard.add(result.model, result.usage, conversation_id)
    return {"response": result.choices[0].message.content, "conversation_id": conversation_id}


async def costs():
    return await dashboard.get_full_dashboard()
