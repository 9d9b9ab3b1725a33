import hashlib
import os
import re

import numpy as np
from fastapi import FastAPI, Header, HTTPException, Response
from openai import AsyncOpenAI
from pydantic import BaseModel

SMALL = set("a an the is are was what whats how hows s do does i of in on to for today now please me it".split())
VALID = set(os.getenv("API_KEY", "dev-key").split(","))


class Question(BaseModel):
    prompt: str


def embed(text):
    """No service: every word that is not small goes to one of 2048 places."""
    v = np.zeros(2048)
    for w in re.findall(r"[a-z0-9]+", text.lower()):
        if w not in SMALL:
            v[int(hashlib.md5(w.rstrip("s").encode()).hexdigest(), 16) % 2048] += 1
    n = np.linalg.norm(v)
    return v / n if n else v


class SemanticCache:
    def __init__(self, similarity_threshold=0.8):
        self.threshold = similarity_threshold
        self.matrix = np.zeros((0, 2048))
        self.answers = []

    def get(self, message):
        if not self.answers:
            return None
        scores = self.matrix @ embed(message)
        i = int(scores.argmax())
        return self.answers[i] if scores[i] >= self.threshold else None

    def put(self, message, answer):
        self.matrix = np.vstack([self.matrix, embed(message)])
        self.answers.append(answer)


def create_app():
    app = FastAPI()
    caches = {}
    client = AsyncOpenAI()

    @app.post("/api/chat")
    async def chat(question: Question, response: Response, x_api_key: str = Header(default="")):
        if x_api_key not in VALID:
            raise HTTPException(403, "no")
        cache = caches.setdefault(x_api_key, SemanticCache())  # one per caller
        answer = cache.get(question.prompt)
        response.headers["X-Cache"] = "HIT" if answer else "MISS"
        if answer is None:
            result = await client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": question.prompt}]
            )
            answer = result.choices[0].message.content
            cache.put(question.prompt, answer)
        return {"answer": answer}

    return app
