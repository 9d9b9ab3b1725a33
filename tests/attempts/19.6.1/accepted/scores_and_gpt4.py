# accepted: a score of word hits and length, gpt-4 itself for the complex ones, JSON log lines, savings inside /metrics
import json
import logging
import os
import re

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI

logging.basicConfig(level=logging.INFO, format="%(message)s")
HARD = set("analyze design compare evaluate prove architecture algorithm debug optimize".split())
EASY = set("hi hello hey thanks bye who when where what is".split())
PRICES = {"gpt-4o-mini": (0.15, 0.60), "gpt-4o": (2.5, 10.0), "gpt-4": (30.0, 60.0)}
TIERS = ["gpt-4o-mini", "gpt-4o", "gpt-4"]


def level(text):
    words = re.findall(r"[a-z']+", text.lower())
    hard = sorted(set(words) & HARD)
    easy = sorted(set(words) & EASY)
    score = 2 * len(hard) + len(words) / 15 - (1 if easy and len(words) < 8 else 0)
    why = {"hard_words": hard, "easy_words": easy, "length": len(words), "score": round(score, 2)}
    return (0 if score < 0.5 else 1 if score < 4 else 2), why


def price(model, usage):
    return (usage.prompt_tokens * PRICES[model][0] + usage.completion_tokens * PRICES[model][1]) / 1e6


def create_app():
    app = FastAPI()
    api = APIRouter(prefix="/v1")
    keys = os.environ["API_KEY"].split(",")
    client = AsyncOpenAI()
    totals = {"count": 0, "spent": 0.0, "gpt4": 0.0}

    @api.post("/chat")
    async def chat(request: Request):
        if request.headers.get("x-api-key") not in keys:
            return JSONResponse({"error": "unauthorized"}, 401)
        text = (await request.json())["message"]
        tier, why = level(text)
        model = TIERS[tier]
        logging.info(json.dumps({"event": "routed", "model": model, "why": why}))
        answer = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
        totals["count"] += 1
        totals["spent"] += price(model, answer.usage)
        totals["gpt4"] += price("gpt-4", answer.usage)
        return {"answer": answer.choices[0].message.content}

    @app.get("/metrics")
    async def metrics():
        return {"cost": {**totals, "saved_usd": totals["gpt4"] - totals["spent"]}}

    app.include_router(api)
    return app
