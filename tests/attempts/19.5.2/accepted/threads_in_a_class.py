# accepted: worker threads and queue.Queue, a dataclass in a dict, Bearer token, 202 with a Location, a list inside the status
import os
import queue
import threading
import uuid
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.security import HTTPBearer
from openai import OpenAI
from pydantic import BaseModel


class Job:
    def __init__(self, owner, text):
        self.id, self.owner, self.text = str(uuid.uuid4()), owner, text
        self.state, self.result, self.error = "waiting", None, None


class Jobs:
    def __init__(self, threads):
        self.jobs, self.order, self.queue = {}, [], queue.Queue()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work, daemon=True) for _ in range(threads)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def add(self, owner, text):
        job = Job(owner, text)
        with self.lock:
            self.jobs[job.id] = job
            self.order.append(job)
            self.queue.put(job)
        return job

    def work(self):
        client = OpenAI(max_retries=0)
        while True:
            job = self.queue.get()
            with self.lock:
                self.order.remove(job)
                job.state = "running"
            try:
                job.result = client.responses.create(model="gpt-4o-mini", input=job.text).output_text
                job.state = "done"
            except Exception as error:
                job.error, job.state = type(error).__name__, "error"

    def ahead(self, job):
        with self.lock:
            return self.order.index(job) if job in self.order else None


jobs = Jobs(3)


@asynccontextmanager
async def lifespan(app):
    jobs.start()
    yield


app = FastAPI(lifespan=lifespan)


def user(token=Depends(HTTPBearer())):
    if token.credentials not in os.environ["API_KEY"].split(","):
        raise HTTPException(401)
    return token.credentials


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat", status_code=202)
def chat(request: ChatRequest, response: Response, user=Depends(user)):
    job = jobs.add(user, request.message)
    response.headers["Location"] = f"/status/{job.id}"
    return {"job": {"id": job.id, "state": job.state}}


@app.get("/status/{id}")
def status(id: str, user=Depends(user)):
    job = jobs.jobs.get(id)
    if job is None or job.owner != user:
        raise HTTPException(404, "no such job")
    info = {"state": job.state, "jobs_ahead": jobs.ahead(job)}
    if job.error:
        info["problem"] = job.error
    if job.result:
        info["messages"] = [{"role": "assistant", "content": job.result}]
    return info
