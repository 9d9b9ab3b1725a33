"""Hand-written fakes for unit tests."""

from __future__ import annotations

from types import ModuleType

import pytest


class FakeClock:
    """A clock that a test moves; it starts at a number that no code expects."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def lengths_folded(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[int]:
    """Let a module note, in the list that is returned, how long each text is that it folds: the work it does."""
    fold, read = module.fold, []

    def counting(text: str) -> str:
        read.append(len(text))
        return str(fold(text))

    monkeypatch.setattr(module, "fold", counting)
    return read
