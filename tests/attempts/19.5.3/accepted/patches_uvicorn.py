# accepted: uvicorn's handle_exit replaced at import, the door closed at once, every wait ends 20 s after the signal
import asyncio
import os
import time

from fastapi import FastAPI, HTTPException, Request
from openai import AsyncOpenAI
from uvicorn import Server


class Stop:
    at = None
    original = Server.handle_exit


def handle_exit(self, sig, frame):
    if Stop.at is None:
        Stop.at = time.monotonic()
    Stop.original(self, sig, frame)


Server.handle_exit = handle_exit
app = FastAPI()
client = None


async def before_it_is_too_late(awaitable):
    task = asyncio.ensure_future(awaitable)
    while not task.done():
        await asyncio.wait([task], timeout=0.25)
        if Stop.at is not None and time.monotonic() > Stop.at + 20:
            task.cancel()
            raise HTTPException(503, "stopped before the answer came")
    return task.result()


@app.on_event("shutdown")
async def close():
    if client:
        await client.close()


@app.post("/v1/chat")
async def chat(request: Request):
    global client
    if request.headers.get("x-api-key") not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    if Stop.at is not None:
        raise HTTPException(503, "shutting down")
    if client is None:
        client = AsyncOpenAI(max_retries=0)
    message = (await request.json())["message"]
    answer = await before_it_is_too_late(
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": message}])
    )
    return {"response": answer.choices[0].message.content}
