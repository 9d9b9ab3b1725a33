"""Three worker threads, a plain queue.Queue, the synchronous client; jobs in place of requests."""

import itertools
import os
import queue
import threading

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import OpenAI
from pydantic import BaseModel

app = FastAPI(title="jobs")
jobs = {}
todo = queue.SimpleQueue()
numbers = itertools.count(1)
started = 0
lock = threading.Lock()


class Prompt(BaseModel):
    text: str


def work():
    global started
    client = OpenAI(max_retries=0)
    while True:
        job = todo.get()
        with lock:
            started += 1
            job["state"] = "IN_PROGRESS"
        try:
            answer = client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": job["prompt"]}]
            )
            job.update(state="DONE", output={"text": answer.choices[0].message.content})
        except Exception as problem:
            job.update(state="ERROR", output={"problem": type(problem).__name__})


for _ in range(3):
    threading.Thread(target=work, daemon=True).start()


def allowed(request):
    return request.headers.get("authorization", "").removeprefix("Bearer ") in os.environ["API_KEY"].split(",")


@app.post("/chat")
def ask(prompt: Prompt, request: Request):
    if not allowed(request):
        return JSONResponse({"error": "who are you?"}, 401)
    with lock:
        number = next(numbers)
        job = jobs[str(number)] = {"number": number, "prompt": prompt.text, "state": "WAITING", "output": None}
        todo.put(job)
    return JSONResponse({"job": number}, 202, headers={"Location": f"/v1/status/{number}"})


@app.get("/v1/status/{number}")
def look(number: str, request: Request):
    if not allowed(request):
        return JSONResponse({"error": "who are you?"}, 401)
    if number not in jobs:
        return JSONResponse({"error": "gone"}, 404)
    job = jobs[number]
    ahead = job["number"] - started - 1 if job["state"] == "WAITING" else None
    return {"state": job["state"], "ahead": ahead, "output": job["output"]}
