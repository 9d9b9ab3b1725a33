# accepted: no report endpoint, every answer carries what has been saved so far; a langchain-free class of enums
import enum
import os
import sys

from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

app = FastAPI(title="router")
client = OpenAI()
state = {"requests": 0, "saved_cents": 0.0}


class Tier(enum.Enum):
    SIMPLE = ("gpt-4o-mini-2024-07-18", 0.06)
    MEDIUM = ("gpt-4o-2024-08-06", 1.0)
    COMPLEX = ("gpt-4-turbo-2024-04-09", 3.0)


class In(BaseModel):
    message: str


class Out(BaseModel):
    text: str
    tier: str
    saved_cents: float
    requests: int


def choose(message):
    tokens = message.lower().replace("?", " ").replace(",", " ").split()
    asks = [t for t in tokens if t in ("explain", "summarize", "write", "describe", "how", "why")]
    deep = [t for t in tokens if t in ("analyze", "design", "prove", "evaluate", "trade-offs")]
    if deep:
        return Tier.COMPLEX, "deep words " + "/".join(deep)
    if asks or len(tokens) > 12:
        return Tier.MEDIUM, "asks for " + "/".join(asks) if asks else "length"
    return Tier.SIMPLE, "short and without task words"


@app.post("/v1/chat")
def chat(body: In, x_api_key: str = Header()) -> Out:
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(403)
    tier, reason = choose(body.message)
    model, cents = tier.value
    sys.stderr.write(f"{model} because {reason}\n")
    done = client.chat.completions.create(model=model.rsplit("-", 3)[0], messages=[{"role": "user", "content": body.message}])
    thousands = done.usage.total_tokens / 1000
    state["requests"] += 1
    state["saved_cents"] += thousands * (Tier.COMPLEX.value[1] - cents)
    return Out(text=done.choices[0].message.content, tier=tier.name, **state)
