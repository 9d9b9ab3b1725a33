# cannot be judged: still busy starting up (lifespan) when the time was up
import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

database_ready = asyncio.Event()


@asynccontextmanager
async def lifespan(app: FastAPI):
    await database_ready.wait()  # nobody sets it
    yield


app = FastAPI(lifespan=lifespan)
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
