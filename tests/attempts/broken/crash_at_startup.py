# cannot be judged: start-up (lifespan) failed in line 12: ConnectionRefusedError: no database at 127.0.0.1:5432
from contextlib import asynccontextmanager

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.client = AsyncOpenAI()
    raise ConnectionRefusedError("no database at 127.0.0.1:5432")
    yield


app = FastAPI(lifespan=lifespan)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await app.state.client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
