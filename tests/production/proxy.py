"""A TCP proxy between the service and a server of the tests: it can make every answer late, or lose one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes on to a port; `delay_s` holds back each piece of an answer, `lose` breaks off before the next."""

    def __init__(self, to_port: int) -> None:
        self.delay_s, self.lose, self.port = 0.0, False, 0
        self._to_port = to_port
        self._tasks: set[asyncio.Task[None]] = set()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: list[asyncio.Task[None]] = []
        with contextlib.ExitStack() as stack:
            stack.callback(writer.close)
            try:
                from_server, to_server = await asyncio.open_connection("127.0.0.1", self._to_port)
                stack.callback(to_server.close)
                ways = (self._pass(reader, to_server), self._pass(from_server, writer, answers=True))
                tasks = [asyncio.create_task(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in tasks:
                    each.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False) -> None:
        while piece := await reader.read(65_536):
            if answers and self.lose:
                self.lose = False
                return
            came = time.monotonic()
            while answers and time.monotonic() - came < self.delay_s:  # noqa: ASYNC110  (it may be taken away meanwhile)
                await asyncio.sleep(0.01)
            writer.write(piece)
            await writer.drain()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Serve on a free port of this machine."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
