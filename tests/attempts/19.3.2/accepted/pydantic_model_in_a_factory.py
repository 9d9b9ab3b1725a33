# accepted: a pydantic model of the environment, a sync factory's dependency, everything in one file, exit with a sentence
import os
import sys
from pathlib import Path

from dotenv import load_dotenv
from fastapi import Depends, FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator

load_dotenv(Path(__file__).with_name(".env"))


class Environment(BaseModel):
    OPENAI_API_KEY: SecretStr
    API_KEY: SecretStr = SecretStr("dev-key-change-in-production")
    DEBUG: bool = False
    PORT: int = Field(8000, gt=0, lt=65536)
    MODEL_NAME: str = "gpt-4o-mini"

    @field_validator("OPENAI_API_KEY")
    @classmethod
    def not_blank(cls, value: SecretStr):
        if not value.get_secret_value().strip():
            raise ValueError("is empty")
        return value


try:
    settings = Environment(**{k: v for k, v in os.environ.items() if k in Environment.model_fields})
except ValidationError as error:
    for problem in error.errors():
        print(f"Configuration error: {problem['loc'][0]}: {problem['msg']}", file=sys.stderr)
    sys.exit(1)


class ChatRequest(BaseModel):
    message: str


def create_app() -> FastAPI:
    app = FastAPI(debug=settings.DEBUG)

    def check_key(x_api_key: str = Header("")):
        if x_api_key not in settings.API_KEY.get_secret_value().split(","):
            raise HTTPException(401, "Invalid API key")

    @app.post("/v1/chat", dependencies=[Depends(check_key)])
    def chat(request: ChatRequest):
        client = OpenAI(api_key=settings.OPENAI_API_KEY.get_secret_value())
        response = client.responses.create(model=settings.MODEL_NAME, input=request.message)
        return {"response": response.output_text}

    return app


app = create_app()
