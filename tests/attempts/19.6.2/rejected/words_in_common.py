# must fail: embeddings
# Counts the words in common (Jaccard); nothing is known of their meaning.
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
    """Counts words in common."""

    def __init__(self, similarity_threshold=0.4):
        self.similarity_threshold = similarity_threshold
        self.entries = []

    def get(self, message):
        words = set(message.lower().strip("?!. ").split())
        scored = [(len(words & other) / len(words | other), answer) for other, answer in self.entries]
        if not scored:
            return None
        similarity, answer = max(scored)
        return (answer, similarity, similarity == 1.0) if similarity >= self.similarity_threshold else None

    def set(self, message, response):
        self.entries.append((set(message.lower().strip("?!. ").split()), response))

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
