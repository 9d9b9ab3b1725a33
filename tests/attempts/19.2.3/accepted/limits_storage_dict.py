# accepted: one dict of {key: [minute started, count]} with datetimes, a decorator around the endpoint, nested answers
import functools
import os
from datetime import datetime, timedelta, timezone

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI

app = FastAPI()
minutes = {}


def rate_limited(endpoint):
    @functools.wraps(endpoint)
    async def wrapper(request: Request):
        key = request.headers.get("x-api-key")
        if key not in os.environ["API_KEY"].split(","):
            return Response(status_code=401)
        now = datetime.now(timezone.utc)
        started, count = minutes.get(key, (now, 0))
        if now >= started + timedelta(minutes=1):
            started, count = now, 0
        if count == 10:
            left = started + timedelta(minutes=1) - now
            return Response("slow down", 429, {"retry-after": str(int(left.total_seconds()) + 1)})
        minutes[key] = (started, count + 1)
        return await endpoint(request)

    return wrapper


@app.post("/v1/chat")
@rate_limited
async def chat(request: Request):
    message = (await request.json())["message"]
    async with AsyncOpenAI() as client:
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": message}], stream=True
        )
        words = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    return JSONResponse({"choices": [{"message": {"content": "".join(words)}}]})
