# accepted: weights in a dictionary, a generator-made report as plain text at /report, gpt-4-turbo, warnings as log lines
import os
import warnings
from functools import reduce

import openai
from fastapi import FastAPI, Header, HTTPException
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

WEIGHTS = {"analyze": 3, "design": 3, "prove": 3, "debug": 3, "evaluate": 2, "compare": 1, "explain": 1, "write": 1,
           "summarize": 1, "describe": 1, "step": 1}
CENTS = {"gpt-4o-mini": 0.06, "gpt-4o": 1.0, "gpt-4-turbo": 3.0}  # per 1000 tokens
history = []

app = FastAPI()


class Body(BaseModel):
    message: str


def pick(message):
    words = [w.strip(".,;:!?'\"()").lower() for w in message.split()]
    score = reduce(lambda total, word: total + WEIGHTS.get(word, 0), words, 0)
    seen = sorted({word for word in words if word in WEIGHTS})
    model = "gpt-4-turbo" if score >= 5 else "gpt-4o" if score else "gpt-4o-mini"
    return model, f"score {score} from {seen}" if seen else f"score 0, {len(words)} plain words"


@app.post("/v1/chat")
def chat(body: Body, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401, "who are you?")
    model, why = pick(body.message)
    warnings.showwarning(f"{model} because {why}", UserWarning, "router", 0)
    answer = openai.OpenAI().chat.completions.create(model=model, messages=[{"role": "user", "content": body.message}])
    history.append((model, answer.usage.total_tokens))
    return {"response": answer.choices[0].message.content, "model": model}


@app.get("/report", response_class=PlainTextResponse)
def report():
    spent = sum(CENTS[model] * tokens / 1000 for model, tokens in history)
    always = sum(CENTS["gpt-4-turbo"] * tokens / 1000 for _, tokens in history)
    return "\n".join([
        f"{len(history)} requests, {spent:.4f} cents",
        f"always gpt-4-turbo: {always:.4f} cents",
        f"Savings: {always - spent:.4f} cents",
    ])
