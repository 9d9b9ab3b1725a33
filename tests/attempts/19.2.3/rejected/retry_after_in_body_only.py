# must fail: retry-after
# Tells when to come back in the JSON body, not in a header.
import math
from datetime import datetime, timedelta

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

USERS = {"alice-key": "alice", "bob-key": "bob"}
MINUTE = timedelta(seconds=60)

app = FastAPI()
client = OpenAI()
visits: dict[str, list[datetime]] = {"alice": [], "bob": []}


class ChatRequest(BaseModel):
    message: str


async def rate_limit(x_api_key: str = Header(default="")) -> None:
    user = USERS.get(x_api_key)
    if user is None:
        raise HTTPException(status_code=403, detail="Forbidden")
    now = datetime.now()
    visits[user] = [t for t in visits[user] if now - t < MINUTE]
    if len(visits[user]) >= 10:
        wait = visits[user][0] + MINUTE - now
        raise HTTPException(
            status_code=429,
            detail={"error": "rate_limit", "Retry-After": math.ceil(wait.total_seconds())},
        )
    visits[user].append(now)


@app.post("/v1/chat", dependencies=[Depends(rate_limit)])
def chat(request: ChatRequest):
    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
