# must fail: embeddings
# What is called an embedding is the text, and what is called a cosine compares letters.
import difflib
import os

from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from openai import OpenAI
from pydantic import BaseModel

KEYS = os.environ.get("API_KEY", "dev-key").split(",")
header = APIKeyHeader(name="X-API-Key", auto_error=False)
client = OpenAI()
app = FastAPI()


def check_key(key: str = Security(header)):
    if key not in KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return key


class ChatRequest(BaseModel):
    message: str


def ask_model(message: str) -> str:
    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": message}]
    )
    return completion.choices[0].message.content


class SemanticCache:
    def __init__(self, similarity_threshold: float = 0.65):
        self.similarity_threshold = similarity_threshold
        self.entries = []

    def _get_embedding(self, text):
        return text.lower().strip(" ?!.")

    def _cosine_similarity(self, a, b):
        return difflib.SequenceMatcher(None, a, b).ratio()

    def get(self, message):
        embedding = self._get_embedding(message)
        best, best_similarity = None, -1.0
        for text, vector, response in self.entries:
            if text == message:
                return response, 1.0, True
            similarity = self._cosine_similarity(embedding, vector)
            if similarity > best_similarity:
                best, best_similarity = response, similarity
        if best is not None and best_similarity >= self.similarity_threshold:
            return best, float(best_similarity), False
        return None

    def set(self, message, response):
        self.entries.append((message, self._get_embedding(message), response))

cache = SemanticCache()


@app.post("/v1/chat")
def chat(request: ChatRequest, key: str = Depends(check_key)):
    found = cache.get(request.message)
    if found:
        response, similarity, exact = found
        return {"response": response, "cached": True, "similarity": similarity}
    response = ask_model(request.message)
    cache.set(request.message, response)
    return {"response": response, "cached": False}
