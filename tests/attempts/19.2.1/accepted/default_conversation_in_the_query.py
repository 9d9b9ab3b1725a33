# accepted: the client chooses the id, in the query, "default" if it does not; a mapping by id; one key, no owners
import asyncio
import os

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
app.state.chats = {}
app.state.lock = asyncio.Lock()


class Body(BaseModel):
    prompt: str


@app.middleware("http")
async def check_key(request: Request, call_next):
    public = ("/openapi.json", "/docs", "/health")
    if request.url.path not in public and request.headers.get("X-API-Key") != os.getenv("API_KEY"):
        return JSONResponse({"error": "unauthorized"}, 401)
    return await call_next(request)


@app.post("/chat")
async def chat(body: Body, conversation: str = "default"):
    async with app.state.lock:
        turns = app.state.chats.get(conversation, [])
        past = [m for asked, answered in turns for m in (("user", asked), ("assistant", answered))]
        messages = [{"role": role, "content": content} for role, content in [*past, ("user", body.prompt)]]
        async with AsyncOpenAI() as client:
            completion = await client.chat.completions.create(model="gpt-4o-mini", messages=messages)
        app.state.chats[conversation] = [*turns, (body.prompt, completion.choices[0].message.content)]
    return {"reply": completion.choices[0].message.content}


@app.get("/v1/conversations")
async def conversations():
    return {id: {"turns": len(turns)} for id, turns in app.state.chats.items()}


@app.get("/v1/conversations/{id}")
async def conversation(id: str):
    if id not in app.state.chats:
        raise HTTPException(404, "not found")
    return {"turns": [{"question": question, "answer": answer} for question, answer in app.state.chats[id]]}
