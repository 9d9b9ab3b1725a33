# accepted: vectors as tuples, the cosine in plain Python, a cache for each caller that forgets after an hour, async
import heapq
import math
import os
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from openai import AsyncOpenAI
from pydantic import BaseModel

THRESHOLD = float(os.getenv("CACHE_THRESHOLD", "0.6"))
KEEP_S = 3600


@dataclass(order=True)
class Known:
    until: float
    answer: str = field(compare=False)
    vector: tuple = field(compare=False)


class Memory:
    def __init__(self):
        self.known: dict[str, list[Known]] = defaultdict(list)

    def look(self, owner, vector):
        mine = self.known[owner]
        while mine and mine[0].until < time.time():
            heapq.heappop(mine)
        best = max(mine, key=lambda entry: cosine(entry.vector, vector), default=None)
        if best is None:
            return None, 0.0
        alike = cosine(best.vector, vector)
        return (best.answer, alike) if alike >= THRESHOLD else (None, alike)

    def keep(self, owner, vector, answer):
        heapq.heappush(self.known[owner], Known(time.time() + KEEP_S, answer, vector))


def cosine(one, other):
    lengths = math.hypot(*one) * math.hypot(*other)
    return math.sumprod(one, other) / lengths if lengths and hasattr(math, "sumprod") else (
        sum(a * b for a, b in zip(one, other)) / lengths if lengths else 0.0
    )


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.openai, app.state.memory = AsyncOpenAI(), Memory()
    yield
    await app.state.openai.close()


app = FastAPI(lifespan=lifespan)


class Message(BaseModel):
    message: str


async def owner(authorization: Annotated[str, Header()] = "", x_api_key: Annotated[str, Header()] = "") -> str:
    key = x_api_key or authorization.removeprefix("Bearer ")
    if not key or key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    return key


@app.post("/v1/chat")
async def chat(body: Message, request: Request, response: Response, who: Annotated[str, Depends(owner)]):
    client, memory = request.app.state.openai, request.app.state.memory
    embedded = await client.embeddings.create(model="text-embedding-3-small", input=[body.message])
    vector = tuple(embedded.data[0].embedding)
    answer, alike = memory.look(who, vector)
    response.headers["X-Cache"] = f"{'HIT' if answer else 'MISS'} {alike:.3f}"
    if answer is None:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
        )
        answer = completion.choices[0].message.content
        memory.keep(who, vector, answer)
    return {"response": answer}
