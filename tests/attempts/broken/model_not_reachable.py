# cannot be judged: the chat answers 500 from the first request on: openai.NotFoundError, unknown model gpt-4o-mini-2
from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel

app = FastAPI()
client = AsyncOpenAI()


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini-2", messages=[{"role": "user", "content": request.message}]
    )
    return {"response": completion.choices[0].message.content}
