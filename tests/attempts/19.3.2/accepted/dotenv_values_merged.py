# accepted: dotenv_values merged under os.environ, a class with properties, Bearer token, an own exception
import os

import uvicorn
from dotenv import dotenv_values, find_dotenv
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openai import AsyncOpenAI


class MissingSetting(Exception):
    def __init__(self, names):
        super().__init__(f"Please set {', '.join(names)} in .env or in the environment of your platform.")


class Settings:
    REQUIRED = ["OPENAI_API_KEY"]

    def __init__(self):
        self._values = {**dotenv_values(find_dotenv(usecwd=True)), **os.environ}
        missing = [name for name in self.REQUIRED if not (self._values.get(name) or "").strip()]
        if missing:
            raise MissingSetting(missing)

    @property
    def tokens(self):
        return self._values.get("API_KEY", "dev-key-change-in-production").split(",")

    @property
    def openai_api_key(self):
        return self._values["OPENAI_API_KEY"]

    @property
    def model(self):
        return self._values.get("MODEL", "gpt-4o-mini")

    @property
    def port(self):
        return int(self._values.get("PORT", "8000"))


settings = Settings()
app = FastAPI()
client = AsyncOpenAI(api_key=settings.openai_api_key)


@app.post("/v1/chat")
async def chat(request: Request):
    if request.headers.get("Authorization", "").removeprefix("Bearer ") not in settings.tokens:
        return JSONResponse({"error": "unauthorized"}, 401)
    body = await request.json()
    completion = await client.chat.completions.create(
        model=settings.model, messages=[{"role": "user", "content": body["message"]}]
    )
    return {"choices": [{"text": completion.choices[0].message.content}]}


if __name__ == "__main__":
    uvicorn.run(app, host="0.0.0.0", port=settings.port)
