"""For unit tests: an app in this process, with its real lifespan, spoken to over HTTP; its model a real SDK client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI
from openai import AsyncOpenAI

from shared.config import Settings
from shared.offline import OfflineModel

KEYS = ("alice-key", "bob-key")
SETTINGS = Settings(openai_api_key="sk-test", api_keys=KEYS)


def client_of(model: OfflineModel, *, timeout_s: float = 5.0) -> AsyncOpenAI:
    """Return the real SDK over a scripted transport; it does not retry, so that one fault is one answer."""
    http: Any = httpx.AsyncClient(transport=httpx.ASGITransport(model))
    return AsyncOpenAI(
        api_key="sk-test", base_url="http://model/v1", http_client=http, max_retries=0, timeout=timeout_s
    )


def described(app: FastAPI) -> dict[str, set[str]]:
    """Return which statuses an app's OpenAPI describes, by "get /path"."""
    return {
        f"{method} {path}": set(operation["responses"])
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
    }


@contextlib.asynccontextmanager
async def serving(app: FastAPI, key: str | None = KEYS[0]) -> AsyncIterator[httpx.AsyncClient]:
    """Start the app, yield a client that sends `key`, stop the app."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"X-API-Key": key} if key else {}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://app", headers=headers) as http,
    ):
        yield http
