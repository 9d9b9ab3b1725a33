"""Server-sent events: the first piece decides the status, a client who leaves cancels what is under way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would collect the pieces
log = logging.getLogger(__name__)
AHEAD = 16  # pieces that the model may be ahead of a slow client


def event(data: object, name: str | None = None) -> bytes:
    """Write one event (WHATWG HTML, section 9.2)."""
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(data)}\n\n".encode()


class Pump:
    """Runs a generator of pieces in a task of its own, so that it can be stopped at any moment, whoever reads it."""

    def __init__(self, pieces: AsyncGenerator[str, None]) -> None:
        self._ready: asyncio.Queue[str | Exception | None] = asyncio.Queue(AHEAD)
        self._task = asyncio.create_task(self._run(pieces))

    async def _run(self, pieces: AsyncGenerator[str, None]) -> None:
        try:
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    await self._ready.put(piece)
        except Exception as error:
            log.debug("told to whoever reads the pieces", exc_info=error)
            await self._ready.put(error)
        else:
            await self._ready.put(None)

    async def next(self) -> str | None:
        """Return the next piece, None after the last; raises what the generator raised."""
        piece = await self._ready.get()
        if isinstance(piece, Exception):
            raise piece
        return piece

    async def stop(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        self._task.cancel()
        await asyncio.wait((self._task,))


class Events(Response):
    """Sends pieces of text as events, then `done`, or `error` with its code."""

    media_type = "text/event-stream"

    def __init__(self, first: str | None, rest: Pump, done: Mapping[str, str], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**HEADERS, **headers})
        del self.headers["content-length"]
        self._first, self._rest, self._done = first, rest, done

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, unless the client leaves: then the model call is cancelled."""
        gone, sending = asyncio.create_task(_gone(receive)), asyncio.create_task(self._send(send))
        try:
            await asyncio.wait((gone, sending), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.wait((gone, sending))
            await self._rest.stop()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        last = event(self._done, "done")
        try:
            piece = self._first
            while piece is not None:
                await send({"type": "http.response.body", "body": event({"text": piece}), "more_body": True})
                piece = await self._rest.next()
        except Exception as error:
            code = str(getattr(error, "code", "internal_error"))
            log.exception("a stream ended early: %s", code)
            last = event({"code": code}, "error")
        await send({"type": "http.response.body", "body": last})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
