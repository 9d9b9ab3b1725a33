# accepted: word scores on the message, the reply compared with the prompt; what is stopped gets a friendly 200
import os

from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel

KEYS = set(os.environ.get("API_KEY", "dev-key").split(","))
PROMPT = "You answer questions about gardening. Never talk about anything else."
SORRY = "I can only help with gardening."
SIGNS = {
    "ignore": 1,
    "forget": 1,
    "previous": 1,
    "instructions": 1,
    "guidelines": 1,
    "rules": 1,
    "safety": 1,
    "unfiltered": 2,
    "restrictions": 1,
    "hateful": 2,
    "racist": 2,
    "bomb": 2,
}

api = FastAPI()
model = AsyncOpenAI()


class Question(BaseModel):
    text: str


def score(text):
    return sum(SIGNS.get(word.strip(".,!?").lower(), 0) for word in text.split())


def gives_away_the_prompt(reply):
    words = PROMPT.lower().split()
    pieces = [" ".join(words[i : i + 5]) for i in range(len(words) - 4)]
    return any(piece in reply.lower() for piece in pieces)


@api.post("/ask-chat")
async def ask(question: Question, x_api_key: str = Header(default="")):
    if x_api_key not in KEYS:
        return JSONResponse({"error": "wrong key"}, status_code=401)
    if score(question.text) > 2 or (score(question.text) == 2 and "previous" not in question.text):
        return {"answer": SORRY}
    answer = await model.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "system", "content": PROMPT}, {"role": "user", "content": question.text}],
    )
    reply = answer.choices[0].message.content
    return {"answer": SORRY if gives_away_the_prompt(reply) else reply}


app = api
