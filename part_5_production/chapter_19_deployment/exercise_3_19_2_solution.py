"""Exercise 3 (19.2): allow ten requests a minute per API key.

The book asks for at most 10 requests a minute per key, a 429 when there are more, and a Retry-After header that says
when to come back. Notice:

* A window that starts over every minute lets 19 requests through in a minute (nine at its end, ten at the start of
  the next). Only a log of the times themselves is exact: a request passes if the tenth last one is a minute old.
* A refused request is not written down, so knocking does not prolong the wait, and Retry-After can be honest.
* It counts after the key has been verified. Who guesses keys gets 401s and never an entry in the table.
* The decision hangs on the endpoint, not on a path: there is no `Host` or URL to trick it with.

Run it:    python exercise_3_19_2_solution.py             (--serve keeps it up)
Check it:  make check EX=19.2.3                           (MINE=your_file.py checks yours)

Limit: one process. Behind two workers a key gets twice as much; then the log belongs in a store they share (Redis).
"""

import math
import time
import uuid
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["RateLimiter", "Window"]

LIMIT = 10
WINDOW_S = 60.0
MAX_KEYS = 100_000  # at most 60 MB; to have more keys active within a minute takes 1,600 requests a second


@dataclass(frozen=True)
class Window:
    """Where one key stands: `remaining` requests now, and one more in `reset_s` seconds (0 for an unused key)."""

    limit: int
    window_s: float
    remaining: int
    reset_s: float

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which a request is accepted, and not one second earlier; 0 when one is accepted now."""
        return 0 if self.remaining else math.ceil(self.reset_s)

    def headers(self) -> dict[str, str]:
        """Return the fields of the IETF draft "RateLimit header fields for HTTP" and, at the limit, Retry-After."""
        fields = {
            "RateLimit-Policy": f'"default";q={self.limit};w={math.ceil(self.window_s)}',
            "RateLimit": f'"default";r={self.remaining};t={math.ceil(self.reset_s)}',
        }
        return fields if self.remaining else fields | {"Retry-After": str(self.retry_after_s)}


class RateLimiter:
    """Accepts at most `limit` hits per key in any `window_s` seconds; exact, whichever way the window slides.

    Per key it keeps the times of the last `limit` accepted hits, 8 bytes each. A decision costs the same for one key
    as for a million. Keys that have been idle for a window are forgotten when a new key comes. When `max_keys` are
    all active, a new key is refused: forgetting an active one would let it start over. It decides without awaiting,
    so within one event loop nothing comes between; where several threads call it, put a lock around `hit`.
    """

    def __init__(
        self,
        limit: int = LIMIT,
        window_s: float = WINDOW_S,
        *,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit < 1 or window_s <= 0 or max_keys < 1:
            raise ValueError("limit, window_s and max_keys must be positive")
        self.limit, self.window_s, self.max_keys = limit, window_s, max_keys
        self._clock = clock
        self._unused = [-math.inf] * limit
        self._hits: OrderedDict[str, array[float]] = OrderedDict()  # the key whose last hit is oldest comes first

    def __len__(self) -> int:
        return len(self._hits)

    def hit(self, key: str) -> bool:
        """Count one request and say whether it is accepted; a refused one is not counted."""
        now = self._clock()
        times = self._hits.get(key)
        if times is None:
            self._forget_idle(now)
            if len(self._hits) >= self.max_keys:
                return False
            times = self._hits[key] = array("d", self._unused)
        elif now - times[0] < self.window_s:
            return False
        del times[0]
        times.append(now)
        self._hits.move_to_end(key)
        return True

    def window(self, key: str) -> Window:
        """Say where a key stands without counting anything."""
        now = self._clock()
        times = self._hits.get(key)
        if times is not None:
            free = bisect_left(times, True, key=lambda t: now - t < self.window_s)
            oldest = times[free] if free < self.limit else now - self.window_s
        elif len(self._hits) < self.max_keys:
            free, oldest = self.limit, now - self.window_s
        else:  # a new key waits until the first of the others is idle
            free, oldest = 0, next(iter(self._hits.values()))[-1]
        return Window(self.limit, self.window_s, free, self.window_s - (now - oldest))

    def _forget_idle(self, now: float) -> None:
        while self._hits:
            key, times = next(iter(self._hits.items()))
            if now - times[-1] < self.window_s:
                return
            del self._hits[key]


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, limiter: RateLimiter | None = None
) -> FastAPI:
    """Wire the limiter between the key and the chat; `/health` has no key and no limit."""
    limiter = RateLimiter() if limiter is None else limiter
    app = base_app(settings, client)

    async def within_limit(caller: Caller, response: Response) -> str:
        accepted = limiter.hit(caller)
        headers = limiter.window(caller).headers()
        if not accepted:
            raise HTTPException(429, f"at most {limiter.limit} requests in {limiter.window_s:g} s", headers)
        response.headers.update(headers)
        return caller

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Annotated[str, Depends(within_limit)]) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    return app


def main(argv: list[str] | None = None) -> int:
    """Use up one key's minute, then show that another key still has its own."""
    hello = {"message": "What is 6 * 7?"}
    steps = [
        demo.Send("POST", "/v1/chat", hello, note="the first request", show=("RateLimit-Policy", "RateLimit")),
        demo.Send("POST", "/v1/chat", hello, note="nine more", times=9, show=("RateLimit",)),
        demo.Send("POST", "/v1/chat", hello, note="the eleventh", show=("RateLimit", "Retry-After")),
        demo.Send("POST", "/v1/chat", hello, key=1, note="another key has its own ten", show=("RateLimit",)),
        demo.Send("POST", "/v1/chat", hello, key=None, note="without a key nothing is counted", show=("RateLimit",)),
    ]
    return demo.run(__doc__, create_app, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
