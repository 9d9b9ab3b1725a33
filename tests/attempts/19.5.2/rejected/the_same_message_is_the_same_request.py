# must fail: id-at-once
import asyncio
import os
import time
import uuid

from fastapi import FastAPI, Header, HTTPException, Request
from openai import AsyncOpenAI

app = FastAPI()
REQUESTS = {}
TASKS = set()
SLOTS = asyncio.Semaphore(4)


def check_key(key):
    if key not in os.environ.get("API_KEY", "dev-key-change-in-production").split(","):
        raise HTTPException(status_code=401, detail="Invalid API key")


async def process(entry):
    async with SLOTS:
        entry["state"] = "in_progress"
        entry["began"] = time.time()
        try:
            async with AsyncOpenAI(max_retries=0) as client:
                answer = await client.chat.completions.create(
                    model="gpt-4o-mini", messages=[{"role": "user", "content": entry["message"]}]
                )
            entry["output"] = {"text": answer.choices[0].message.content}
            entry["state"] = "success"
        except Exception as error:
            entry["state"] = "failure"
            entry["problem"] = {"type": type(error).__name__}


def describe(entry):
    shown = {"state": entry["state"], "submitted": entry["submitted"]}
    if entry["state"] == "pending":
        shown["ahead_of_you"] = sum(
            1
            for other in REQUESTS.values()
            if other["state"] == "pending" and other["submitted"] < entry["submitted"]
        )
    for name in ("output", "problem"):
        if name in entry:
            shown[name] = entry[name]
    return shown


@app.post("/v1/chat", status_code=202)
async def chat(request: Request, x_api_key: str = Header()):
    check_key(x_api_key)
    body = await request.json()
    request_id = str(uuid.uuid5(uuid.NAMESPACE_URL, body["message"]))
    REQUESTS[request_id] = {"message": body["message"], "state": "pending", "submitted": time.time()}
    task = asyncio.create_task(process(REQUESTS[request_id]))
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)
    return {"links": {"self": f"/status/{request_id}"}, "id": request_id}


@app.get("/status/{request_id}")
async def status(request_id: str, x_api_key: str = Header()):
    check_key(x_api_key)
    if request_id not in REQUESTS:
        raise HTTPException(status_code=404)
    return describe(REQUESTS[request_id])
