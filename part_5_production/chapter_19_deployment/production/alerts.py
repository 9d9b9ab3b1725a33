"""Sends the alerts of exercise 3 in section 19.4, each once: whichever process claims it first does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from exercise_3_19_4_solution import COOLDOWN_S, Alert, post
from pydantic import SecretStr

from production.stores import Claims

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)


class Messenger:
    """Logs alerts, and posts them to the webhook if there is one."""

    def __init__(self, webhook: SecretStr | None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._webhook, self._transport = webhook, transport
        self._claims: Claims | None = None

    @contextlib.asynccontextmanager
    async def running(self, claims: Claims) -> AsyncIterator[None]:
        """Hold the way to the webhook open."""
        import httpx

        self._claims = claims
        async with self._transport or httpx.AsyncHTTPTransport() as self._way:
            yield

    async def send(self, alert: Alert) -> None:
        """Send an alert, unless another process has it; a claim whose sending failed is given back."""
        assert self._claims
        name = f"alert:{alert.issue}:{alert.state}"
        if not await self._claims.claim(name, COOLDOWN_S):
            return
        try:
            if self._webhook:
                await post(self._way, self._webhook.get_secret_value(), alert)
        except BaseException:
            await self._claims.give_back(name)
            raise
        finally:
            if alert.attempt == 1:
                log.warning("%s", alert)
