# must fail: failure
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security
from fastapi.security import APIKeyHeader
from openai import OpenAI
from pydantic import BaseModel


class Stage(str, Enum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    DONE = "DONE"
    ERROR = "ERROR"


class Message(BaseModel):
    message: str


class Receipt(BaseModel):
    request_id: int


class Status(BaseModel):
    request_id: int
    status: Stage
    position: int | None = None
    response: str | None = None
    detail: str | None = None


class Agent:
    def __init__(self):
        self.client = OpenAI(max_retries=0)

    def run(self, text):
        completion = self.client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": text}]
        )
        return completion.choices[0].message.content


class ChatService:
    def __init__(self, agent, workers=3):
        self.agent = agent
        self.pool = ThreadPoolExecutor(workers)
        self.numbers = itertools.count(1)
        self.futures = {}

    def submit(self, text):
        number = next(self.numbers)
        self.futures[number] = self.pool.submit(self.agent.run, text)
        return number

    def look(self, number):
        future = self.futures[number]
        if future.done():
            if future.exception():
                return Status(request_id=number, status=Stage.RUNNING)
            return Status(request_id=number, status=Stage.DONE, response=future.result())
        if future.running():
            return Status(request_id=number, status=Stage.RUNNING)
        earlier = [n for n, f in list(self.futures.items()) if n < number and not f.running() and not f.done()]
        return Status(request_id=number, status=Stage.WAITING, position=len(earlier) + 1)


def get_service(request: Request) -> ChatService:
    return request.app.state.service


def get_user(key: Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))]) -> str:
    if not key or key not in os.environ["API_KEY"].split(","):
        raise HTTPException(403)
    return key


Service = Annotated[ChatService, Depends(get_service)]
router = APIRouter(dependencies=[Depends(get_user)])


@router.post("/v1/chat", response_model=Receipt, status_code=201)
def chat(body: Message, service: Service):
    return Receipt(request_id=service.submit(body.message))


@router.get("/status/{request_id}", response_model=Status, response_model_exclude_none=True)
def status(request_id: str, service: Service):
    try:
        return service.look(int(request_id))
    except (KeyError, ValueError):
        raise HTTPException(410, "no such request") from None


def create_app():
    app = FastAPI()
    app.state.service = ChatService(Agent())
    app.include_router(router)
    return app
