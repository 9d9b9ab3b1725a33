"""The model's connection: the SDK over aiohttp, which takes less of a core per call than the SDK's own transport.

Imported when the agent is built: it loads the SDK.
"""

from __future__ import annotations

from typing import Any

import httpx2
from openai import AsyncOpenAI, DefaultAioHttpClient


class Client(DefaultAioHttpClient):
    """The SDK's own client over aiohttp, but a model that is not there, or hangs up, is not called slow."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send; the adapter says ConnectTimeout for every broken connection."""
        try:
            return await super().send(request, **options)
        except httpx2.ConnectTimeout as error:
            if isinstance(error.__cause__, TimeoutError):
                raise
            raise httpx2.ConnectError(str(error), request=request) from error


def over_aiohttp(client: AsyncOpenAI) -> AsyncOpenAI:
    """Return the same client over aiohttp, where that is installed; whoever asks for it closes it."""
    try:
        return client.with_options(http_client=Client(timeout=client.timeout))
    except RuntimeError:  # aiohttp is not installed
        return client
