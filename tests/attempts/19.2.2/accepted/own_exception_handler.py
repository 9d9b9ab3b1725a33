# Constrained types and an exception handler that turns Pydantic's errors into sentences with codes.
import os
from typing import Annotated

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel, StringConstraints

client = AsyncOpenAI(max_retries=0)
app = FastAPI()
SENTENCES = {
    "string_too_long": "Your message is longer than 1000 characters.",
    "string_too_short": "Your message is empty.",
    "missing": "There is no message.",
}


class Body(BaseModel):
    message: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


@app.exception_handler(RequestValidationError)
async def in_sentences(request: Request, error: RequestValidationError):
    kinds = [each["type"] for each in error.errors()]
    return JSONResponse({"code": kinds[0], "error": SENTENCES.get(kinds[0], "This is no message.")}, status_code=422)


@app.post("/v1/chat")
async def chat(body: Body, x_api_key: Annotated[str | None, Header()] = None):
    if x_api_key not in os.environ["API_KEY"].split(","):
        return JSONResponse({"error": "unknown key"}, status_code=403)
    done = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    return {"answer": done.choices[0].message.content}
