"""The strict stand-in on a real port of this machine, in a thread of the checker: its answers carry a nonce."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from shared.offline import Fault, OfflineModel, answer


class StandIn:
    """Serves OfflineModel; `said(text)` tells which of its answers a text carries."""

    controlled = True  # a check may tell it to fail or to wait

    def __init__(self) -> None:
        self._nonce = f"nonce-{secrets.token_hex(4)}"
        self._count = itertools.count(1)
        self.model = OfflineModel(self._say)
        self.held, self._holds = 0, False
        quiet: dict[str, Any] = {"log_level": "critical", "lifespan": "off", "ws": "none"}
        config = uvicorn.Config(self._serve, "127.0.0.1", 0, interface="asgi3", **quiet)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/v1"

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
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
