"""The plain service of section 19.2: `/health`, the two bodies of `/v1/chat`, the key in `X-API-Key`.

app = base_app(settings, client)

@app.post("/v1/chat")
async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from http.client import responses
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field

from shared.agent import ModelError, open_agent
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
log = logging.getLogger(__name__)


class ChatRequest(BaseModel):
    """What `/v1/chat` takes: a message, and the conversation that it continues, if any."""

    message: str = Field(min_length=1, max_length=10_000)
    conversation_id: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")


class ChatResponse(BaseModel):
    """What `/v1/chat` answers."""

    response: str
    conversation_id: str


def base_app(
    settings: Settings | None = None,
    client: AsyncOpenAI | None = None,
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
    build: Callable[..., Any] | None = None,
    **options: Any,
) -> FastAPI:
    """Make the app that every exercise adds its endpoints to.

    It brings `/health`, the agent in `app.state.agent` (opened and closed with the app) and one translation of
    ModelError to HTTP. `settings` default to the environment's, `lifespan` runs inside the agent's life,
    `build` compiles another agent than the chapter's, and `options` go to FastAPI.
    """
    settings = settings or Settings.load()

    @contextlib.asynccontextmanager
    async def agent_and(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_agent(settings, client, build=build) as app.state.agent,
            lifespan(app) if lifespan else _nothing(),
        ):
            yield

    app = FastAPI(title="Chapter 19", lifespan=agent_and, **options)
    app.state.settings = settings
    app.state.callers = [(key.encode(), caller_id(key)) for key in settings.api_keys]
    app.add_exception_handler(ModelError, model_error_response)
    app.add_exception_handler(RequestValidationError, invalid_request_response)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def caller_id(key: str) -> str:
    """Return the name under which a key's owner is counted, stored and logged: stable, and no way back to the key."""
    return "caller-" + hashlib.sha256(key.encode()).hexdigest()[:12]


async def require_api_key(
    request: Request, key: Annotated[str | None, Security(APIKeyHeader(name="X-API-Key", auto_error=False))]
) -> str:
    """Return the caller's id; a missing and a wrong key get the same 401, in the same time."""
    given = (key or "").encode()
    found: str | None = None
    for known, caller in request.app.state.callers:
        if hmac.compare_digest(known, given):
            found = caller
    if found is None:
        raise HTTPException(401, "send a valid key in the X-API-Key header", {"WWW-Authenticate": "ApiKey"})
    return found


def may_answer(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe in OpenAPI the errors that an endpoint can answer with, besides FastAPI's own 422."""
    return {status: {"description": responses[status]} for status in statuses}


Caller = Annotated[str, Depends(require_api_key)]


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Finish `work`, or cancel it when the client hangs up: nobody should pay for an answer that nobody reads."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_hung_up(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client closed the connection")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait((task, gone))  # what was cancelled ends before its caller goes on


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def model_error_response(request: Request, error: Exception) -> JSONResponse:
    """Answer 503 with `Retry-After` when the model asks to wait, 504 when it is too slow, else 502; never its words."""
    assert isinstance(error, ModelError)
    log.warning("%s", error)
    status = 503 if error.retry_after_s else 504 if error.code == "model_timeout" else 502
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse({"detail": str(error), "code": error.code}, status, headers)


async def invalid_request_response(request: Request, error: Exception) -> JSONResponse:
    """Answer 422 as FastAPI does, but without the input: a NaN or half a surrogate in it would make that a 500."""
    assert isinstance(error, RequestValidationError)
    detail = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": detail}, 422)
