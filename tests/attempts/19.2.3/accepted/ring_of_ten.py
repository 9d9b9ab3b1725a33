# accepted: deque(maxlen=10): full, and its oldest entry younger than a minute, means no; required header (422 without)
import math
import time
from collections import deque
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

KEYS = ("student-1", "student-2", "student-3")

app = FastAPI()
last_ten = {key: deque(maxlen=10) for key in KEYS}


class ChatBody(BaseModel):
    message: str


async def checked_key(x_api_key: Annotated[str, Header()]) -> str:
    if x_api_key not in KEYS:
        raise HTTPException(403, "This key is not on the list")
    return x_api_key


async def within_limit(key: Annotated[str, Depends(checked_key)]) -> None:
    times = last_ten[key]
    now = time.time()
    if len(times) == 10 and now - times[0] < 60:
        wait = math.ceil(60 - (now - times[0]))
        raise HTTPException(429, "Ten questions a minute are enough", headers={"retry-after": str(wait)})
    times.append(now)  # pushes the oldest one out


@app.post("/v1/chat", dependencies=[Depends(within_limit)])
def chat(body: ChatBody) -> str:
    with OpenAI() as client:
        completion = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": body.message}],
        )
    return completion.choices[0].message.content
