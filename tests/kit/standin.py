"""The strict stand-in on a real port of this machine, in a thread of the checker: its answers carry a nonce."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import secrets
from collections.abc import Iterator
from typing import Any

from shared.offline import Fault, OfflineModel, answer
from tests.kit.background import Background


class StandIn:
    """Serves OfflineModel; `said(text)` tells which of its answers a text carries."""

    controlled = True  # a check may tell it to fail or to wait

    def __init__(self) -> None:
        self._nonce = f"nonce-{secrets.token_hex(4)}"
        self._count = itertools.count(1)
        self.model = OfflineModel(self._say)
        self.held, self._holds = 0, False
        self._background = Background(self._serve)
        self.url = f"{self._background.url}/v1"

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.held += 1
        while self._holds:  # noqa: ASYNC110  (let go by another thread, which cannot set an asyncio.Event)
            await asyncio.sleep(0.002)
        self.held -= 1
        await self.model(scope, receive, send)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Hold back the calls that come meanwhile; `held` says how many."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False

    def _say(self, messages: list[dict[str, Any]]) -> str:
        return f"{answer(messages)} {self._nonce}-{next(self._count)}"

    def said(self, text: str) -> set[str]:
        """Return the marks of the stand-in's answers that a text carries, whatever they are wrapped in."""
        return set(re.findall(rf"{self._nonce}-\d+", text))

    def next(self, *faults: Fault) -> None:
        """Let the next calls go wrong."""
        self.model.next(*faults)

    def close(self) -> None:
        """Stop serving; answers under way are dropped."""
        self._background.close()
