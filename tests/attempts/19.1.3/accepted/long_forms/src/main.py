import os

from fastapi import FastAPI
from openai import OpenAI

app = FastAPI()


@app.get("/ask")
def ask(q: str):
    client = OpenAI(api_key=os.environ["OPENAI_API_KEY"])
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": q}])
    return {"answer": answer.choices[0].message.content}
