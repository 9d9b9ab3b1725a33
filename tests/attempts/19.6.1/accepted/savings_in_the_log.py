# accepted: no endpoint and no field: each log line says the model, why, and what has been saved so far; rules in a table
import logging
import os
import re
import sys
from uuid import uuid4

from fastapi import Depends, FastAPI, HTTPException, Request
from langchain_core.messages import HumanMessage
from openai import AsyncOpenAI
from pydantic import BaseModel

RULES = [
    ("complex", r"\b(?:analy[sz]e|design|prove|evaluate|debug|architect)\w*\b"),
    ("medium", r"\b(?:explain|summari[sz]e|write|describe|compare|draft)\w*\b"),
    ("simple", r"^\W*(?:hi|hello|hey|what|who|when|where)\b"),
]
TIERS = {"simple": ("gpt-4o-mini", 0.15, 0.6), "medium": ("gpt-4o", 2.5, 10.0), "complex": ("gpt-4", 30.0, 60.0)}

logger = logging.getLogger("model-router")
logger.setLevel(logging.INFO)
logger.addHandler(logging.StreamHandler(sys.stdout))


class Turn(BaseModel):
    message: str
    conversation_id: str | None = None


class Savings:
    spent = baseline = 0.0

    def add(self, tier, usage):
        self.spent += self.cost(tier, usage)
        self.baseline += self.cost("complex", usage)

    def cost(self, tier, usage):
        _, per_in, per_out = TIERS[tier]
        return (usage.prompt_tokens * per_in + usage.completion_tokens * per_out) / 1e6


def route(text):
    for tier, pattern in RULES:
        if hit := re.search(pattern, text, re.IGNORECASE):
            return tier, f"matched {hit.group(0)!r}"
    return "medium", "no rule matched"


def key_of(request: Request):
    if request.headers.get("x-api-key") not in os.environ["API_KEY"].split(","):
        raise HTTPException(status_code=401, detail="Invalid API key")


def make_app():
    app, savings = FastAPI(dependencies=[Depends(key_of)]), Savings()

    @app.post("/v1/chat")
    async def chat(turn: Turn):
        tier, why = route(turn.message)
        question = HumanMessage(turn.message)
        async with AsyncOpenAI() as client:
            result = await client.chat.completions.create(
                model=TIERS[tier][0], messages=[{"role": "user", "content": question.content}]
            )
        savings.add(tier, result.usage)
        saved = savings.baseline - savings.spent
        logger.info("%s -> %s (%s); saved so far: $%.6f", tier, TIERS[tier][0], why, saved)
        return {"response": result.choices[0].message.content, "conversation_id": turn.conversation_id or str(uuid4())}

    return app


app = make_app()
