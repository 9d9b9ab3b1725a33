# accepted: "from time import time" and a lock in a plain def handler, with a new sync client for every request
from threading import Lock
from time import time

from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

USERS = {
    "alice-key": "alice",
    "bob-key": "bob",
}

app = FastAPI()
lock = Lock()
history = {}


class Question(BaseModel):
    message: str


def limit(user):
    """Remember this request, or say how many seconds the user has to wait."""
    with lock:
        now = time()
        recent = [t for t in history.get(user, []) if t > now - 60]
        history[user] = recent
        if len(recent) >= 10:
            return int(recent[0] + 60 - now) + 1
        recent.append(now)
        return 0


@app.post("/v1/chat")
def chat(question: Question, x_api_key: str = Header(default="")):
    user = USERS.get(x_api_key)
    if user is None:
        raise HTTPException(403, "Unknown API key")

    wait = limit(user)
    if wait > 0:
        raise HTTPException(429, f"Slow down, {user}!", headers={"Retry-After": str(wait)})

    client = OpenAI()
    result = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": question.message},
        ],
    )
    return {"user": user, "response": result.choices[0].message.content}
