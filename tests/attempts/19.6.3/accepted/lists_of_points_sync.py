# accepted: plain def, the responses API, series of points, the budget from the environment, a traffic light in words
import os
import threading
import time
from collections import defaultdict
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from openai import OpenAI
from pydantic import BaseModel

USD_PER_MILLION = {"gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.50, 10.0)}
BUDGET = float(os.getenv("MONTHLY_BUDGET", "100"))


class Book:
    def __init__(self):
        self.lock, self.rows = threading.Lock(), []

    def add(self, model, conversation, usage):
        dollars_in, dollars_out = USD_PER_MILLION[model]
        cost = (usage.input_tokens * dollars_in + usage.output_tokens * dollars_out) / 1e6
        with self.lock:
            self.rows.append((time.time(), model, conversation, cost))

    def sum_by(self, column, since=0.0):
        sums = defaultdict(float)
        for row in self.rows:
            if row[0] >= since:
                sums[row[column]] += row[3]
        return sums


book = Book()
client = OpenAI()
router = APIRouter()


class ChatRequest(BaseModel):
    message: str
    conversation_id: str | None = None


def caller(token=Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)


@router.post("/v1/chat", dependencies=[Depends(caller)])
def chat(request: ChatRequest):
    conversation = request.conversation_id or str(uuid4())
    model = "gpt-4o" if len(request.message) > 400 else "gpt-4o-mini"
    answer = client.responses.create(model=model, input=request.message)
    book.add(model, conversation, answer.usage)
    return {"response": answer.output_text, "conversation_id": conversation}


@router.get("/costs", dependencies=[Depends(caller)])
def costs():
    now = time.time()
    hour = int(now // 3600)
    by_hour = defaultdict(float)
    for at, _, _, cost in book.rows:
        by_hour[int(at // 3600)] += cost
    total = sum(row[3] for row in book.rows)
    oldest = book.rows[0][0] if book.rows else now
    days = max(now - oldest, 3600) / 86400
    month = total / days * 30
    share = month / BUDGET * 100
    light = "green" if share < 70 else "yellow" if share < 100 else "red"
    top = sorted(book.sum_by(2).items(), key=lambda item: -item[1])[:10]
    return {
        "hourly": [
            {"hour": time.strftime("%Y-%m-%dT%H:00", time.gmtime(h * 3600)), "usd": by_hour.get(h, 0.0)}
            for h in range(hour - 23, hour + 1)
        ],
        "models": [{"model": m, "usd": usd} for m, usd in book.sum_by(1).items()],
        "top_conversations": [{"conversation_id": c, "usd": usd} for c, usd in top],
        "projected_month_usd": month,
        "budget": {"limit_usd": BUDGET, "spent_usd": total, "percent": share, "indicator": light},
    }


app = FastAPI()
app.include_router(router)
