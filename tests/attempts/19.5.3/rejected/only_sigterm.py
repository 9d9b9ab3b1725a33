# must fail: ctrl-c
import asyncio
import contextlib
import os
import signal
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

TIMEOUT = 20.0


class Message(BaseModel):
    message: str


async def in_flight(request: Request):
    state = request.app.state.shutdown
    if state["requested"].is_set():
        raise HTTPException(503, "Server is shutting down", headers={"Retry-After": "15", "Connection": "close"})
    state["active"] += 1
    try:
        yield state
    finally:
        state["active"] -= 1


async def user(x_api_key: Annotated[str, Header()] = ""):
    if x_api_key not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)


async def agent(request: Request):
    return request.app.state.openai


router = APIRouter(dependencies=[Depends(user)])


@router.post("/v1/chat")
async def chat(body: Message, state=Depends(in_flight), openai=Depends(agent)):
    work = asyncio.ensure_future(
        openai.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}])
    )
    over = asyncio.ensure_future(state["over"].wait())
    await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
    over.cancel()
    if not work.done():
        work.cancel()
        raise HTTPException(503, "The server had to stop before the answer was there")
    return {"reply": work.result().choices[0].message.content}


@contextlib.asynccontextmanager
async def lifespan(app):
    state = app.state.shutdown = {"active": 0, "requested": asyncio.Event(), "over": asyncio.Event()}
    loop, uvicorns = asyncio.get_running_loop(), {}

    async def watch():
        await state["requested"].wait()
        for _ in range(int(TIMEOUT * 10)):
            if not state["active"]:
                break
            await asyncio.sleep(0.1)
        state["over"].set()
        number = state["number"]
        if number == signal.SIGTERM:
            uvicorns[number](number, None)

    def heard(number, frame):
        state["number"] = number
        loop.call_soon_threadsafe(state["requested"].set)

    watcher = asyncio.create_task(watch())
    for number in (signal.SIGINT, signal.SIGTERM):
        uvicorns[number] = signal.signal(number, heard)
    async with AsyncOpenAI(max_retries=0) as app.state.openai:
        yield
    watcher.cancel()


app = FastAPI(lifespan=lifespan)
app.include_router(router)
