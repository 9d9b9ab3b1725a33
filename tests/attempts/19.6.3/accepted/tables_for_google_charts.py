# accepted: tables with a row of headings, as Google Charts reads them; a class of its own, a router, a bar of squares
import os
import time
from collections import Counter, deque
from functools import lru_cache
from uuid import uuid4

from fastapi import APIRouter, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

PER_TOKEN = {"gpt-4o-mini": (0.00000015, 0.0000006)}


class Meter:
    """Every call as one tuple, the newest last."""

    def __init__(self, budget: float):
        self.budget = budget
        self.calls = deque(maxlen=100_000)

    def note(self, model: str, conversation: str, prompt: int, completion: int) -> None:
        price_in, price_out = PER_TOKEN[model]
        self.calls.append((time.time(), model, conversation, prompt * price_in + completion * price_out))

    def sums(self, field: int) -> Counter:
        result = Counter()
        for call in self.calls:
            result[call[field]] += call[3]
        return result

    def hours(self) -> list:
        current = int(time.time()) // 3600
        spent = Counter()
        for at, _, _, cost in self.calls:
            spent[int(at) // 3600] += cost
        rows = [
            [time.strftime("%d %b %H:00", time.gmtime(h * 3600)), spent[h]] for h in range(current - 23, current + 1)
        ]
        return [["Hour", "Dollars"], *rows]

    def forecast(self) -> float:
        if not self.calls:
            return 0.0
        observed = max(time.time() - self.calls[0][0], 3600)
        return sum(call[3] for call in self.calls) / observed * 3600 * 24 * 31

    def budget_table(self) -> list:
        spent = sum(call[3] for call in self.calls)
        filled = min(10, int(10 * spent / self.budget))
        return [
            ["Limit", "Spent", "Bar"],
            [self.budget, spent, "\N{BLACK SQUARE}" * filled + "\N{WHITE SQUARE}" * (10 - filled)],
        ]


class Ask(BaseModel):
    message: str
    conversation_id: str = ""


@lru_cache
def model_client() -> OpenAI:
    return OpenAI()


meter = Meter(float(os.getenv("BUDGET", "20")))
api = APIRouter(prefix="/v1")


def check(key: str) -> None:
    if key not in os.environ["API_KEY"].split(","):
        raise HTTPException(status_code=401, detail="unknown key")


@api.post("/chat")
def chat(ask: Ask, x_api_key: str = Header("")):
    check(x_api_key)
    conversation = ask.conversation_id or str(uuid4())
    done = model_client().chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": ask.message}]
    )
    meter.note("gpt-4o-mini", conversation, done.usage.prompt_tokens, done.usage.completion_tokens)
    return {"response": done.choices[0].message.content, "conversation_id": conversation}


@api.get("/costs")
def costs(x_api_key: str = Header("")):
    check(x_api_key)
    dearest = [[name, cost] for name, cost in meter.sums(2).most_common(10)]
    return {
        "hours": meter.hours(),
        "models": [["Model", "Dollars"], *([name, cost] for name, cost in meter.sums(1).items())],
        "conversations": [["Conversation", "Dollars"], *dearest],
        "month": [["Forecast"], [meter.forecast()]],
        "monthly_forecast": meter.forecast(),
        "budget": meter.budget_table(),
    }


app = FastAPI()
app.include_router(api)
