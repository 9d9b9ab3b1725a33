# pydantic validates; the refusal comes from the lifespan, so the port never opens; one key only.
import os
from contextlib import asynccontextmanager

from dotenv import dotenv_values
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI
from pydantic import BaseModel, Field, SecretStr, ValidationError


class Environment(BaseModel):
    OPENAI_API_KEY: SecretStr = Field(min_length=1)
    API_KEY: SecretStr = SecretStr("dev-key-change-in-production")
    MODEL: str = "gpt-4o-mini"


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        found = Environment.model_validate({**dotenv_values(os.path.join(os.path.dirname(__file__), ".env")), **os.environ})
    except ValidationError as error:
        missing = ", ".join(str(problem["loc"][0]) for problem in error.errors())
        raise RuntimeError(f"please set: {missing}") from None
    app.state.env = found
    app.state.client = AsyncOpenAI(api_key=found.OPENAI_API_KEY.get_secret_value())
    yield
    await app.state.client.close()


app = FastAPI(lifespan=lifespan)


class Ask(BaseModel):
    text: str


@app.post("/ask")
async def ask(ask: Ask, request: Request):
    env = request.app.state.env
    if request.headers.get("X-API-Key") != env.API_KEY.get_secret_value():
        return JSONResponse({"error": "unauthorized"}, 401)
    done = await request.app.state.client.chat.completions.create(
        model=env.MODEL, messages=[{"role": "user", "content": ask.text}]
    )
    return {"answer": done.choices[0].message.content}
