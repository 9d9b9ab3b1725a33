# accepted: dataclass tiers, plain def, the responses API, print as the log, GET /v1/savings as a nested report
import os
import re
import threading
from dataclasses import dataclass

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from openai import OpenAI
from pydantic import BaseModel


@dataclass(frozen=True)
class Tier:
    name: str
    model: str
    usd_in: float
    usd_out: float


SIMPLE = Tier("simple", "gpt-4o-mini", 0.15e-6, 0.60e-6)
MEDIUM = Tier("medium", "gpt-4o", 2.5e-6, 10e-6)
COMPLEX = Tier("complex", "gpt-4", 30e-6, 60e-6)
HARD = {"analyze", "analyse", "compare", "design", "architecture", "evaluate", "strategy", "prove", "comprehensive"}
MIDDLING = {"explain", "summarize", "write", "describe", "how", "why", "translate"}


def choose(text):
    words = re.findall(r"[a-z']+", text.lower())
    if hard := HARD & set(words):
        return COMPLEX, f"contains {sorted(hard)[0]}"
    if len(words) > 80:
        return COMPLEX, f"{len(words)} words"
    if middling := MIDDLING & set(words):
        return MEDIUM, f"contains {sorted(middling)[0]}"
    if len(words) > 15:
        return MEDIUM, f"{len(words)} words"
    return SIMPLE, "short and plain"


class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
        self.spent = self.would_be = 0.0
        self.count = {}

    def add(self, tier, usage):
        with self.lock:
            self.spent += usage.input_tokens * tier.usd_in + usage.output_tokens * tier.usd_out
            self.would_be += usage.input_tokens * COMPLEX.usd_in + usage.output_tokens * COMPLEX.usd_out
            self.count[tier.name] = self.count.get(tier.name, 0) + 1


app = FastAPI()
ledger = Ledger()
client = OpenAI()


class ChatRequest(BaseModel):
    message: str


def authorised(token=Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)


@app.post("/v1/chat", dependencies=[Depends(authorised)])
def chat(request: ChatRequest):
    tier, reason = choose(request.message)
    print(f"routing to {tier.model} ({tier.name}): {reason}", flush=True)
    answer = client.responses.create(model=tier.model, input=request.message)
    ledger.add(tier, answer.usage)
    return {"answer": answer.output_text, "routing": {"tier": tier.name, "model": tier.model, "reason": reason}}


@app.get("/v1/savings", dependencies=[Depends(authorised)])
def savings():
    saved = ledger.would_be - ledger.spent
    return {
        "requests": ledger.count,
        "usd": {"actual": ledger.spent, "always_gpt4": ledger.would_be, "saved": saved},
        "percent": 100 * saved / ledger.would_be if ledger.would_be else 0,
    }
