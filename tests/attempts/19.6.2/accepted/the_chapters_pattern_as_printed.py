# accepted: the key pattern with its printed threshold, 0.92, asking the API for embeddings
import os
import time
from dataclasses import dataclass, field
from typing import List, Optional, Tuple

import numpy as np
from dotenv import load_dotenv
from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

load_dotenv()
client = OpenAI(api_key=os.getenv("OPENAI_API_KEY"))
app = FastAPI()


@dataclass
class CacheEntry:
    message: str
    response: str
    embedding: List[float]
    created_at: float = field(default_factory=time.time)


class SemanticCache:
    def __init__(self, similarity_threshold: float = 0.92):
        self.similarity_threshold = similarity_threshold
        self.entries: List[CacheEntry] = []
        self.exact_hits = 0
        self.semantic_hits = 0
        self.misses = 0

    def _get_embedding(self, text: str) -> List[float]:
        return client.embeddings.create(model="text-embedding-3-small", input=text).data[0].embedding

    def _cosine_similarity(self, a, b) -> float:
        return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))

    def get(self, message: str) -> Optional[Tuple[str, float, bool]]:
        for e in self.entries:
            if e.message.lower().strip() == message.lower().strip():
                self.exact_hits += 1
                return e.response, 1.0, True
        emb = self._get_embedding(message)
        best, best_sim = None, 0.0
        for e in self.entries:
            sim = self._cosine_similarity(emb, e.embedding)
            if sim > best_sim:
                best, best_sim = e, sim
        if best and best_sim >= self.similarity_threshold:
            self.semantic_hits += 1
            return best.response, best_sim, False
        self.misses += 1
        return None

    def set(self, message: str, response: str):
        self.entries.append(CacheEntry(message, response, self._get_embedding(message)))

    def stats(self):
        total = self.exact_hits + self.semantic_hits + self.misses
        return {
            "exact_hits": self.exact_hits, "semantic_hits": self.semantic_hits, "misses": self.misses,
            "exact_hit_rate": self.exact_hits / total if total else 0,
            "hit_rate": (self.exact_hits + self.semantic_hits) / total if total else 0,
        }


cache = SemanticCache(similarity_threshold=float(os.getenv("SIMILARITY_THRESHOLD", "0.92")))


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
def chat(request: ChatRequest, x_api_key: str = Header(None)):
    hit = cache.get(request.message)
    if hit:
        return {"response": hit[0], "cached": True, "similarity": hit[1]}
    r = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}])
    answer = r.choices[0].message.content
    cache.set(request.message, answer)
    return {"response": answer, "cached": False}


@app.get("/cache/stats")
def stats():
    return cache.stats()
