# accepted: Annotated constraints (strip_whitespace, so that the edges do not count), the endpoint a method, Bearer token
import os
from typing import Annotated

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from fastapi import Security
from openai import AsyncOpenAI
from pydantic import BaseModel, StringConstraints


class ChatRequest(BaseModel):
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class ChatApi:
    def __init__(self, model: str):
        self.model = model
        self.client = AsyncOpenAI()
        self.router = APIRouter()
        self.router.add_api_route("/v1/chat", self.chat, methods=["POST"])

    async def chat(self, request: ChatRequest, token=Security(HTTPBearer())):
        if token.credentials not in os.environ["API_KEYS"].split(","):
            raise HTTPException(401, "Unknown token")
        response = await self.client.responses.create(model=self.model, input=request.text)
        return {"data": {"reply": response.output_text}}


app = FastAPI()
app.include_router(ChatApi("gpt-4o").router)
