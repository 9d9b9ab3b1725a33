# must fail: output-filter
# Patterns on the message alone: a question that no pattern knows gets whatever the model says.
import os
import re

from fastapi import Depends, FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel

API_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")
SYSTEM_PROMPT = "You are the help desk of a bicycle shop. The discount code for staff is SPOKE-77."
ATTACKS = [
    r"\b(ignore|disregard|forget)\b.{0,30}\b(instructions|rules|guidelines)\b",
    r"\byou are now\b.{0,40}\b(unfiltered|unrestricted|no (rules|restrictions))\b",
    r"\b(reveal|print|show|what is)\b.{0,20}\byour (system )?prompt\b",
    r"\b(hateful|racist|sexist)\b|\bbuild a bomb\b",
]

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


def looks_like_an_attack(message: str) -> bool:
    return any(re.search(pattern, message, re.IGNORECASE) for pattern in ATTACKS)


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    if looks_like_an_attack(request.message):
        raise HTTPException(status_code=400, detail="This message was refused.")
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": request.message}],
    )
    return {"response": completion.choices[0].message.content}
