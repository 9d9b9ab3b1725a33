"""A circuit breaker: while a dependency keeps failing, nobody waits for it and nobody piles up retries."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.agent import ModelError

NOT_ITS_FAULT = ("model_request_refused", "model_not_found", "model_key_refused")


class Breaker:
    """Opens after `failures` in a row, for `open_s` seconds; then one try at a time decides (Nygard, "Release It!").

    For one event loop, and per process: each finds out for itself, which costs `failures` calls.
    """

    def __init__(self, failures: int = 5, open_s: float = 10.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures, self.open_s, self._clock = failures, open_s, clock
        self._failed, self._until, self._trying = 0, 0.0, False

    @property
    def is_open(self) -> bool:
        """Tell whether calls are refused now."""
        return self._failed >= self.failures and (self._trying or self._clock() < self._until)

    def before(self) -> None:
        """Let a call through, or raise ModelError with the time to wait."""
        if self.is_open:
            wait_s = max(1, round(self._until - self._clock() + 0.5))
            raise ModelError("model_circuit_open", retry_after_s=wait_s)
        self._trying = self._failed >= self.failures

    def after(self, error: BaseException | None) -> None:
        """Note how a call ended; what the model cannot help, and a client who left, says nothing about it."""
        self._trying = False
        if error is None:
            self._failed = 0
        elif isinstance(error, TimeoutError) or (isinstance(error, ModelError) and error.code not in NOT_ITS_FAULT):
            self._failed += 1
            self._until = self._clock() + self.open_s
