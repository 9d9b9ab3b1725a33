# accepted: plain def, numpy dot products, the responses API, similarity in the answer, Bearer token, a cache per caller
import os
import threading

import numpy as np
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from openai import OpenAI
from pydantic import BaseModel


class Cache:
    def __init__(self, client, threshold=0.6):
        self.client, self.threshold = client, threshold
        self.lock = threading.Lock()
        self.exact, self.texts, self.vectors = {}, [], None

    def embed(self, text):
        data = self.client.embeddings.create(model="text-embedding-3-small", input=[text]).data
        vector = np.array(data[0].embedding)
        return vector / (np.linalg.norm(vector) or 1)

    def find(self, text):
        if text in self.exact:
            return self.exact[text], 1.0, None
        vector = self.embed(text)
        with self.lock:
            if self.vectors is not None:
                scores = self.vectors @ vector
                best = int(scores.argmax())
                if scores[best] >= self.threshold:
                    return self.exact[self.texts[best]], float(scores[best]), vector
        return None, 0.0, vector

    def keep(self, text, vector, answer):
        with self.lock:
            self.exact[text] = answer
            self.texts.append(text)
            self.vectors = vector[None] if self.vectors is None else np.vstack([self.vectors, vector])


client = OpenAI()
caches = {}
app = FastAPI()


class ChatRequest(BaseModel):
    message: str


def cache_of(token=Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    return caches.setdefault(token.credentials, Cache(client))


@app.post("/v1/chat")
def chat(request: ChatRequest, cache: Cache = Depends(cache_of)):
    text = " ".join(request.message.lower().split())
    answer, similarity, vector = cache.find(text)
    if answer is not None:
        return {"response": answer, "cached": True, "similarity": similarity}
    answer = client.responses.create(model="gpt-4o-mini", input=request.message).output_text
    cache.keep(text, vector, answer)
    return {"response": answer, "cached": False}
