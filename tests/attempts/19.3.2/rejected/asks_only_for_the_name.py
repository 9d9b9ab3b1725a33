# must fail: blank
# A variable that is set to nothing counts as set.
import os
from dataclasses import dataclass, field

from dotenv import load_dotenv
from fastapi import FastAPI, Header, HTTPException
from openai import AsyncOpenAI
from pydantic import BaseModel


class ConfigurationError(Exception):
    pass


@dataclass
class Config:
    openai_api_key: str = field(repr=False)
    api_key: str = field(default="dev-key-change-in-production", repr=False)
    debug: bool = False
    port: int = 8000

    @classmethod
    def from_environment(cls) -> "Config":
        load_dotenv()
        openai_key = os.environ.get("OPENAI_API_KEY")
        if openai_key is None:
            raise ConfigurationError("OPENAI_API_KEY is required.")
        return cls(
            openai_api_key=openai_key,
            api_key=os.getenv("API_KEY") or cls.api_key,
            debug=os.getenv("DEBUG", "false").lower() == "true",
            port=int(os.getenv("PORT") or 8000),
        )


config = Config.from_environment()
client = AsyncOpenAI(api_key=config.openai_api_key or "none")
app = FastAPI(debug=config.debug)


class Message(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(body: Message, x_api_key: str = Header("")):
    if x_api_key not in config.api_key.split(","):
        raise HTTPException(401)
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body.message}]
    )
    return {"response": completion.choices[0].message.content}
