# cannot be judged: line 3: ModuleNotFoundError: the package langchain_openai is not installed
from fastapi import FastAPI
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

app = FastAPI()
llm = ChatOpenAI(model="gpt-4o-mini")


class ChatRequest(BaseModel):
    message: str


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    answer = await llm.ainvoke(request.message)
    return {"response": answer.content}
