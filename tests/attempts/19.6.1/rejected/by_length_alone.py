# must fail: three-tiers
# Only two tiers: everything that is not short goes to the expensive model.
import logging
import os

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

logging.basicConfig(level=logging.INFO)
app = FastAPI()
client = AsyncOpenAI()
PRICES = {"gpt-4o-mini": 0.0004, "gpt-4": 0.03}
totals = {"actual": 0.0, "baseline": 0.0, "requests": 0}


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    tier = "simple" if len(request.message) < 40 else "complex"
    model = "gpt-4o-mini" if tier == "simple" else "gpt-4"
    logging.info("selected %s because %s (%d characters)", model, tier, len(request.message))
    completion = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": request.message}]
    )
    tokens = completion.usage.total_tokens / 1000
    totals["actual"] += tokens * PRICES[model]
    totals["baseline"] += tokens * PRICES["gpt-4"]
    totals["requests"] += 1
    return {"response": completion.choices[0].message.content, "model": model, "complexity": tier}


@app.get("/savings")
async def savings():
    return {**totals, "saved": totals["baseline"] - totals["actual"]}
