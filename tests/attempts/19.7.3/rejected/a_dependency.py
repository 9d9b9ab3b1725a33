# must fail: on-errors, when-it-breaks
# A dependency sets the headers: errors are other responses, and do not have them.
import os

from fastapi import Depends, FastAPI, Header, HTTPException, Response
from openai import AsyncOpenAI
from pydantic import BaseModel

API_KEYS = os.getenv("API_KEY", "dev-key-change-in-production").split(",")


def security_headers(response: Response):
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers["Strict-Transport-Security"] = "max-age=31536000"


app = FastAPI(dependencies=[Depends(security_headers)], docs_url=None, redoc_url=None)

client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


async def verify_api_key(x_api_key: str | None = Header(default=None)) -> str:
    if x_api_key not in API_KEYS:
        raise HTTPException(status_code=401, detail="Invalid API key")
    return x_api_key


@app.post("/v1/chat")
async def chat(request: ChatRequest, api_key: str = Depends(verify_api_key)):
    try:
        completion = await client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": request.message}]
        )
    except Exception as error:
        raise HTTPException(status_code=502, detail="The model did not answer") from error
    return {"response": completion.choices[0].message.content}
