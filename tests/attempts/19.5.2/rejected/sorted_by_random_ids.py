# must fail: in-order, position
import asyncio
import os
import secrets
from contextlib import asynccontextmanager

from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

waiting: list[str] = []
requests: dict[str, dict] = {}


async def work():
    client = AsyncOpenAI(max_retries=0)
    while True:
        if not waiting:
            await asyncio.sleep(0.01)
            continue
        request = requests[waiting.pop(0)]
        request["status"] = "processing"
        try:
            completion = await client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": request["message"]}]
            )
            request.update(status="completed", response=completion.choices[0].message.content)
        except Exception as error:
            request.update(status="failed", error=str(error))


@asynccontextmanager
async def lifespan(app):
    task = asyncio.create_task(work())
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(body: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    id = secrets.token_urlsafe(12)
    requests[id] = {"status": "queued", "message": body.message}
    waiting.append(id)
    waiting.sort()
    return {"request_id": id, "status": "queued", "position": len(waiting)}


@app.get("/status/{request_id}")
async def status(request_id: str):
    if request_id not in requests:
        raise HTTPException(404, "Request not found")
    found = dict(requests[request_id])
    if request_id in waiting:
        found["position"] = waiting.index(request_id) + 1
    return found
