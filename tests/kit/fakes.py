"""Hand-written fakes for unit tests."""

from __future__ import annotations


class FakeClock:
    """A clock that a test moves; it starts at a number that no code expects."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
