# must fail: reworded
# A table of aliases for the example in the book; every other rewording misses.
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


ALIASES = {"how's the weather today?": "what's the weather?"}


class SemanticCache:
    """The chapter's example works."""

    def __init__(self):
        self.entries = {}

    def _key(self, message):
        client.embeddings.create(model="text-embedding-3-small", input=message)  # not compared yet
        key = message.strip().lower()
        return ALIASES.get(key, key)

    def get(self, message):
        answer = self.entries.get(self._key(message))
        return (answer, 1.0, True) if answer else None

    def set(self, message, response):
        self.entries[self._key(message)] = response

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
