"""The endpoints for callers: chat, stream, queue, conversations. Each needs a key; those that cost are limited."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

from exercise_1_19_2_solution import MAX_PAGE_SIZE, PAGE_SIZE, shown
from exercise_2_19_2_solution import ChatMessage, problem_responses
from exercise_2_19_5_solution import MAX_WAIT_S, ChatStatus, IdempotencyConflict, QueueFull, chat_status
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response

from production.chat import Chat
from production.stores import Jobs, Order, Stores
from production.streaming import Events, Pump
from shared.api import Caller, ChatResponse, unless_gone

router = APIRouter(prefix="/v1")


async def within_limit(request: Request, caller: Caller, response: Response) -> str:
    """Count the request; raises 429 with the time to wait."""
    accepted, window = await request.app.state.stores.limits.hit(caller)
    headers = window.headers()
    if not accepted:
        raise HTTPException(429, f"at most {window.limit} requests in {window.window_s:g} s", headers)
    response.headers.update(headers)
    return caller


Limited = Annotated[str, Depends(within_limit)]


async def chat_of(request: Request) -> Chat:
    """Return the service's way from message to answer."""
    chat: Chat = request.app.state.chat
    return chat


async def stores_of(request: Request) -> Stores:
    """Return the service's stores."""
    stores: Stores = request.app.state.stores
    return stores


async def jobs_of(request: Request) -> Jobs:
    """Return the service's queue."""
    jobs: Jobs = request.app.state.jobs
    return jobs


ChatOf = Annotated[Chat, Depends(chat_of)]
StoresOf = Annotated[Stores, Depends(stores_of)]
JobsOf = Annotated[Jobs, Depends(jobs_of)]


@router.post("/chat", responses=problem_responses(400, 401, 402, 413, 422, 429, 502, 503, 504))
async def answer(
    request: Request, body: ChatMessage, caller: Limited, response: Response, chat: ChatOf
) -> ChatResponse:
    """Answer a message."""
    conversation_id = body.conversation_id or uuid.uuid4().hex
    turn = chat.answer(caller, body.message, conversation_id, fresh=body.conversation_id is None)
    said = await unless_gone(request, turn)
    response.headers["Cache-Status"] = said.cache
    return ChatResponse(response=said.text, conversation_id=conversation_id)


@router.post("/chat/stream", responses=problem_responses(400, 401, 402, 413, 422, 429, 502, 503, 504))
async def stream(request: Request, body: ChatMessage, caller: Limited, response: Response, chat: ChatOf) -> Response:
    """Answer a message piece by piece, as server-sent events."""
    conversation_id = body.conversation_id or uuid.uuid4().hex
    pump = Pump(chat.stream(caller, body.message, conversation_id))
    try:
        first = await unless_gone(request, pump.next())
    except BaseException:
        await pump.stop()
        raise
    return Events(first, pump, {"conversation_id": conversation_id}, response.headers)


@router.post("/chat/queue", status_code=202, response_model_exclude_none=True)
async def enqueue(
    body: ChatMessage,
    caller: Limited,
    response: Response,
    chat: ChatOf,
    jobs: JobsOf,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> ChatStatus:
    """Accept a message at once, and answer it later."""
    chat.admit(body.message, caller)  # what would be refused is refused now
    try:
        queued = await jobs.enqueue(
            body.message, caller=caller, conversation_id=body.conversation_id, idempotency_key=idempotency_key
        )
    except QueueFull as full:
        raise HTTPException(503, str(full), {"Retry-After": str(full.retry_after_s)}) from None
    except IdempotencyConflict as conflict:
        raise HTTPException(422, str(conflict)) from None
    response.headers["Location"] = f"/v1/status/{queued.request_id}"
    return chat_status(queued, jobs.retry_after_s, response)


@router.get("/status/{request_id}", response_model_exclude_none=True)
async def status(
    request: Request,
    request_id: str,
    caller: Caller,
    response: Response,
    jobs: JobsOf,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the result")] = 0,
) -> ChatStatus:
    """Say how far a queued message is."""
    found = await unless_gone(request, jobs.wait(request_id, wait, caller=caller))
    return chat_status(found, jobs.retry_after_s, response)


@router.delete("/status/{request_id}", response_model_exclude_none=True)
async def cancel(request_id: str, caller: Caller, response: Response, jobs: JobsOf) -> ChatStatus:
    """Cancel a queued message that has no answer yet."""
    return chat_status(await jobs.cancel(request_id, caller=caller), jobs.retry_after_s, response)


@router.get("/conversations")
async def list_conversations(
    caller: Caller,
    stores: StoresOf,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = PAGE_SIZE,
    after: str | None = None,
    order: Order = "desc",
) -> dict[str, Any]:
    """List the caller's conversations."""
    page = await stores.index.page(caller, limit=limit, after=after, order=order)
    first_id, last_id = (page.ids[0], page.ids[-1]) if page.ids else (None, None)
    return {"conversations": page.ids, "first_id": first_id, "last_id": last_id, "has_more": page.has_more}


@router.get("/conversations/{conversation_id}")
async def get_conversation(conversation_id: str, caller: Caller, chat: ChatOf, stores: StoresOf) -> dict[str, Any]:
    """Show the messages of one."""
    known = await stores.index.get(caller, conversation_id)
    graph = await chat.agent.graph()
    state = await graph.aget_state({"configurable": {"thread_id": f"{caller}/{known.id}"}})
    messages = chat.shown(shown(state.values.get("messages", [])))
    return {"id": known.id, "created_at": int(known.created_at), "messages": messages}


@router.delete("/conversations/{conversation_id}", status_code=204)
async def delete_conversation(conversation_id: str, caller: Caller, chat: ChatOf, stores: StoresOf) -> None:
    """Forget one, after the turns that were there first."""
    async with chat.agent.turn(f"{caller}/{conversation_id}"):
        await stores.index.remove(caller, conversation_id)
        await stores.saver.adelete_thread(f"{caller}/{conversation_id}")
