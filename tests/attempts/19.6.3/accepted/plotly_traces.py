# accepted: figures as Plotly wants them (x and y), a list of dated costs, camelCase names, a coloured gauge
import os
import uuid
from datetime import datetime, timedelta, timezone
from typing import Annotated, Optional

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

UTC = timezone.utc
BUDGET = 25.0
RATES = {"gpt-4o-mini": {"prompt": 1.5e-7, "completion": 6e-7}}
app = FastAPI()
ledger: list[dict] = []


class Question(BaseModel):
    message: str = Field(min_length=1)
    conversation_id: Optional[str] = None


async def known(key: Annotated[Optional[str], Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]) -> str:
    if not key or key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "API key required")
    return key


Known = Annotated[str, Depends(known)]


def bars(pairs):
    return {"type": "bar", "x": [name for name, _ in pairs], "y": [round(cost, 8) for _, cost in pairs]}


def total(entries):
    return sum(entry["usd"] for entry in entries)


def grouped(field):
    sums = {}
    for entry in ledger:
        sums[entry[field]] = sums.get(entry[field], 0.0) + entry["usd"]
    return sorted(sums.items(), key=lambda pair: -pair[1])


@app.post("/v1/chat")
async def chat(question: Question, key: Known):
    conversation = question.conversation_id or uuid.uuid4().hex
    async with AsyncOpenAI() as client:
        answer = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": question.message}]
        )
    rate, usage = RATES["gpt-4o-mini"], answer.usage
    cost = usage.prompt_tokens * rate["prompt"] + usage.completion_tokens * rate["completion"]
    ledger.append({"at": datetime.now(UTC), "model": "gpt-4o-mini", "conversation": conversation, "usd": cost})
    return {"response": answer.choices[0].message.content, "conversation_id": conversation}


@app.get("/costs")
async def costs(key: Known):
    now = datetime.now(UTC)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    hours = [this_hour - timedelta(hours=back) for back in reversed(range(24))]
    spent_in = [
        (hour.strftime("%H:%M"), total(e for e in ledger if hour <= e["at"] < hour + timedelta(hours=1)))
        for hour in hours
    ]
    spent = total(ledger)
    share = spent / BUDGET
    elapsed = max((now - ledger[0]["at"]).total_seconds(), 60.0) if ledger else 60.0
    return {
        "hourlySpending": bars(spent_in),
        "modelSpending": bars(grouped("model")),
        "topConversations": bars(grouped("conversation")[:10]),
        "runRate": {"monthEnd": spent / elapsed * 30 * 86400},
        "budget": {
            "limit": BUDGET,
            "used": spent,
            "gauge": {"percent": share * 100, "color": "green" if share < 0.8 else "orange" if share < 1 else "red"},
        },
    }
