# cannot be judged: no POST endpoint that takes a message; found: GET /health, GET /limits
from fastapi import FastAPI

app = FastAPI()


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.get("/limits")
async def limits():
    return {"requests": 10, "seconds": 60}
