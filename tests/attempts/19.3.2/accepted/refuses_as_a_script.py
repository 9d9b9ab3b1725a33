# The app itself never complains; `python FILE` looks at the configuration before it starts uvicorn, and exits with 1.
import os
import sys
from pathlib import Path

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Security
from fastapi.security import APIKeyHeader
from openai import AsyncOpenAI
from pydantic import BaseModel

for line in Path(__file__).with_name(".env").read_text().splitlines() if Path(__file__).with_name(".env").exists() else []:
    name, equals, value = line.partition("=")
    if equals and not name.lstrip().startswith("#"):
        os.environ.setdefault(name.strip(), value.strip().strip("\"'"))

REQUIRED = ["OPENAI_API_KEY"]


def check_configuration() -> list[str]:
    return [name for name in REQUIRED if not os.environ.get(name, "").strip()]


def guard(key: str | None = Security(APIKeyHeader(name="X-API-Key", auto_error=False))) -> None:
    if key not in os.environ.get("API_KEY", "dev-key-change-in-production").split(","):
        raise HTTPException(403, "wrong API key")


app = FastAPI(dependencies=[Depends(guard)])


class Chat(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(chat: Chat):
    async with AsyncOpenAI(api_key=os.environ["OPENAI_API_KEY"]) as client:
        answer = await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": chat.message}]
        )
    return answer.choices[0].message.content


if __name__ == "__main__":
    if missing := check_configuration():
        sys.exit("Configuration error. Please set " + " and ".join(missing))
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
