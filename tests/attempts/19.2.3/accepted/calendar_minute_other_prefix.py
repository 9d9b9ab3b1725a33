# accepted: POST /api/chat on a router; counts per (key, int(time.time() // 60))
import time

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

TENANTS = {
    "north-7f3a": "North Ltd",
    "south-19bc": "South Inc",
    "west-55d0": "West GmbH",
}

client = AsyncOpenAI()
router = APIRouter(prefix="/api")
counters: dict[tuple[str, int], int] = {}


class ChatMessage(BaseModel):
    message: str = Field(min_length=1, max_length=2000)


class ChatAnswer(BaseModel):
    tenant: str
    reply: str


async def tenant_of(request: Request) -> str:
    tenant = TENANTS.get(request.headers.get("X-API-Key", ""))
    if tenant is None:
        raise HTTPException(status_code=401, detail="unknown tenant")
    return tenant


async def throttle(tenant: str = Depends(tenant_of)) -> str:
    now = time.time()
    minute = int(now // 60)
    for old in [slot for slot in counters if slot[1] < minute]:
        del counters[old]
    used = counters.get((tenant, minute), 0)
    if used >= 10:
        wait = (minute + 1) * 60 - int(now)
        raise HTTPException(status_code=429, detail="wait for the next minute", headers={"Retry-After": str(wait)})
    counters[tenant, minute] = used + 1
    return tenant


@router.post("/chat")
async def chat(message: ChatMessage, tenant: str = Depends(throttle)) -> ChatAnswer:
    completion = await client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": message.message}],
    )
    return ChatAnswer(tenant=tenant, reply=completion.choices[0].message.content or "")


app = FastAPI(title="Tenant chat")
app.include_router(router)
