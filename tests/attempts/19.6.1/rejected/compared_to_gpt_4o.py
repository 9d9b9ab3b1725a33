# must fail: baseline
# The baseline is gpt-4o, so each hard question looks like a loss.
import os
import re
from typing import Tuple

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


class SmartModelRouter:
    MODELS = {
        "simple": {"name": "gpt-4o-mini", "cost_per_1k": 0.0004},
        "medium": {"name": "gpt-4o", "cost_per_1k": 0.01},
        "complex": {"name": "gpt-4-turbo", "cost_per_1k": 0.02},
    }
    SIMPLE_PATTERNS = [r"^(hi|hello|hey)\b", r"^what is\b", r"^who is\b", r"^\d+\s*[-+*/]"]
    COMPLEX_PATTERNS = [r"\banalyze\b", r"\bdesign\b", r"\bstep by step\b", r"\bprove\b", r"\bevaluate\b"]

    def __init__(self):
        self.stats = []

    def classify_complexity(self, message: str) -> Tuple[str, str]:
        text = message.lower()
        for pattern in self.COMPLEX_PATTERNS:
            if re.search(pattern, text):
                return "complex", f"matched {pattern}"
        for pattern in self.SIMPLE_PATTERNS:
            if re.search(pattern, text):
                return "simple", f"matched {pattern}"
        if len(text) > 400:
            return "complex", f"long message ({len(text)} characters)"
        if len(text) < 25:
            return "simple", "short message"
        return "medium", "nothing special"

    def track(self, tier, tokens):
        self.stats.append((tier, tokens))

    def get_savings_report(self) -> dict:
        actual = sum(self.MODELS[tier]["cost_per_1k"] * tokens / 1000 for tier, tokens in self.stats)
        baseline = sum(self.MODELS["medium"]["cost_per_1k"] * tokens / 1000 for _, tokens in self.stats)
        return {
            "total_requests": len(self.stats),
            "actual_cost": round(actual, 6),
            "baseline_cost": round(baseline, 6),
            "savings": round(baseline - actual, 6),
            "savings_percent": f"{(1 - actual / baseline) * 100:.1f}%" if baseline else "0%",
        }


app = FastAPI()
client = AsyncOpenAI()
router = SmartModelRouter()


class ChatRequest(BaseModel):
    message: str


def check_key(x_api_key: str = Header(None)):
    if x_api_key not in KEYS:
        raise HTTPException(401, "Invalid API key")
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, key: str = Depends(check_key)):
    complexity, reason = router.classify_complexity(request.message)
    model = router.MODELS[complexity]["name"]
    print(f"[router] {complexity} -> {model} ({reason})")
    result = await client.chat.completions.create(model=model, messages=[{"role": "user", "content": request.message}])
    router.track(complexity, result.usage.total_tokens)
    return {"response": result.choices[0].message.content, "model": model}


@app.get("/savings")
async def savings():
    return router.get_savings_report()
