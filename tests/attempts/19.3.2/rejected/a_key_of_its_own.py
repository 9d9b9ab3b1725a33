# must fail: required
# The OpenAI key has a default, so that the app starts without one and every chat fails.
import os

from dotenv import load_dotenv
from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
from pydantic import BaseModel

load_dotenv()


class Config:
    openai_api_key = os.getenv("OPENAI_API_KEY") or "sk-your-openai-api-key-here"
    api_key = os.getenv("API_KEY", "dev-key-change-in-production")
    port = int(os.getenv("PORT", 8000))


app = FastAPI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
def chat(request: ChatRequest, x_api_key: str = Header("")):
    if x_api_key not in Config.api_key.split(","):
        raise HTTPException(401)
    client = OpenAI(api_key=Config.openai_api_key)
    completion = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
