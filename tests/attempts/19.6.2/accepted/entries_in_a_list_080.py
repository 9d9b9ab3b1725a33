"""Exercise 2: semantic cache."""
import os
import time
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import numpy as np
from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI()


@dataclass
class CacheEntry:
    message: str
    response: str
    embedding: List[float]
    created_at: float = field(default_factory=time.time)


class SemanticCache:
    def __init__(self, similarity_threshold: float = 0.92, max_entries: int = 1000, ttl: float = 3600):
        self.similarity_threshold = similarity_threshold
        self.max_entries, self.ttl = max_entries, ttl
        self.entries: List[CacheEntry] = []
        self.hits = self.misses = self.exact = 0

    def _get_embedding(self, text: str) -> List[float]:
        return client.embeddings.create(model="text-embedding-3-small", input=text).data[0].embedding

    def _cosine_similarity(self, a: List[float], b: List[float]) -> float:
        return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))

    def get(self, message: str) -> Optional[Tuple[str, float, bool]]:
        now = time.time()
        self.entries = [e for e in self.entries if now - e.created_at < self.ttl]
        key = message.strip().lower()
        for e in self.entries:
            if e.message.strip().lower() == key:
                self.hits += 1
                self.exact += 1
                return e.response, 1.0, True
        if not self.entries:
            self.misses += 1
            return None
        emb = self._get_embedding(message)
        best = max(self.entries, key=lambda e: self._cosine_similarity(emb, e.embedding))
        score = self._cosine_similarity(emb, best.embedding)
        if score >= self.similarity_threshold:
            self.hits += 1
            return best.response, score, False
        self.misses += 1
        return None

    def set(self, message: str, response: str) -> None:
        if len(self.entries) >= self.max_entries:
            self.entries.pop(0)
        self.entries.append(CacheEntry(message, response, self._get_embedding(message)))

    def stats(self):
        total = self.hits + self.misses
        return {"hits": self.hits, "exact_hits": self.exact, "semantic_hits": self.hits - self.exact, "misses": self.misses,
                "hit_rate": self.hits / total if total else 0.0}


cache = SemanticCache(similarity_threshold=float(os.getenv("SIMILARITY_THRESHOLD", "0.80")))
app = FastAPI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
def chat(req: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ.get("API_KEY", "").split(","):
        raise HTTPException(401)
    found = cache.get(req.message)
    if found:
        response, similarity, exact = found
        return {"response": response, "cached": True, "similarity": round(similarity, 4), "exact_match": exact}
    r = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": req.message}])
    answer = r.choices[0].message.content
    cache.set(req.message, answer)
    return {"response": answer, "cached": False}


@app.get("/cache/stats")
def stats(x_api_key: str = Header("")):
    return cache.stats()
