# accepted: a store class by dependency injection, Authorization: Bearer, plain def, the SDK's responses API, bare lists
import os
import threading
from dataclasses import dataclass, field
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException, status
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI(max_retries=0, timeout=20)
bearer = HTTPBearer(auto_error=False)
router = APIRouter(prefix="/v1")


@dataclass
class Conversation:
    owner: str
    turns: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Conversations:
    def __init__(self):
        self._all = {}

    def of(self, owner):
        return [id for id, conversation in self._all.items() if conversation.owner == owner and conversation.turns]

    def find(self, owner, id):
        conversation = self._all.get(id)
        if conversation is None or conversation.owner != owner:
            raise HTTPException(status.HTTP_404_NOT_FOUND, "no such conversation")
        return conversation

    def start(self, owner):
        id = uuid4().hex
        self._all[id] = Conversation(owner)
        return id


store = Conversations()


def get_store() -> Conversations:
    return store


def caller(token: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
    if token is None or token.credentials not in os.environ["API_KEYS"].split(","):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, "who are you?")
    return token.credentials


Store = Annotated[Conversations, Depends(get_store)]
Caller = Annotated[str, Depends(caller)]


class Question(BaseModel):
    message: str
    conversation_id: str | None = None


@router.post("/chat")
def chat(question: Question, store: Store, caller: Caller):
    id = question.conversation_id or store.start(caller)
    conversation = store.find(caller, id)
    with conversation.lock:
        asked = [*conversation.turns, {"role": "user", "content": question.message}]
        response = client.responses.create(model="gpt-4o-mini", instructions="You are helpful.", input=asked)
        conversation.turns = [*asked, {"role": "assistant", "content": response.output_text}]
    return {"id": id, "answer": {"text": response.output_text, "model": response.model}}


@router.get("/conversations")
def list_conversations(store: Store, caller: Caller) -> list[str]:
    return store.of(caller)


@router.get("/conversations/{id}")
def read_conversation(id: str, store: Store, caller: Caller) -> list[dict]:
    return store.find(caller, id).turns


app = FastAPI()
app.include_router(router)
