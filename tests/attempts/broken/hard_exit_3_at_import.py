# cannot be judged: line 11: the process ended with status 3 before the server was up, without a word (os._exit)
import os

from fastapi import FastAPI
from openai import AsyncOpenAI

app = FastAPI()
client = AsyncOpenAI()

if "I_HAVE_READ_THE_README" not in os.environ:
    os._exit(3)


@app.post("/v1/chat")
async def chat(body: dict):
    completion = await client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": body["message"]}]
    )
    return {"response": completion.choices[0].message.content}
