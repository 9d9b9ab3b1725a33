"""An ASGI app on a free port of this machine, served by a thread of this process."""

from __future__ import annotations

import threading
import time
from typing import Any

import uvicorn


class Background:
    """Serves from when it is made until `close`; `url` says where, without a slash at its end."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(app, "127.0.0.1", 0, interface="asgi3", log_level="critical", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def close(self) -> None:
        """Stop serving; answers under way are dropped."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
