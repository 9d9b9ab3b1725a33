"""Every test starts with a scrubbed environment and cannot leave this machine."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kit import remembered
from tests.kit.app import Bench
from tests.kit.child import only_loopback
from tests.kit.fakes import FakeClock
from tests.kit.standin import StandIn

SCRUBBED = (
    "OPENAI_",
    "API_KEY",
    "OFFLINE",
    "ENVIRONMENT",
    "HOST",
    "PORT",
    "LANGSMITH_",
    "LANGCHAIN_",
    "LOG_",
    "ALERT_",
    "COSTS_",
    "OTEL_",
    "MONTHLY_",
    "HARD_",
    "OPERATOR_",
)


def pytest_configure(config: pytest.Config) -> None:
    """Scrub before anything is imported, and block every connection that leaves this machine."""
    for name in list(os.environ):
        if name.startswith(SCRUBBED):
            del os.environ[name]
    sys.addaudithook(only_loopback)
    gc.disable()  # until everything is imported: what was imported stays, and to look it through takes a third as long


def pytest_runtestloop() -> None:
    """Let the collector look at what tests make, and at nothing that was there before them."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture
def anyio_backend() -> str:
    """Let `@pytest.mark.anyio` tests run on asyncio, which is what uvicorn runs them on."""
    return "asyncio"


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """One stand-in model and one starter for all the targets that a test process judges."""
    with Bench() as shared:
        yield shared


@pytest.fixture
def model() -> Iterator[StandIn]:
    """A stand-in model on a port, of the test's own."""
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that a test moves."""
    return FakeClock()


@pytest.fixture(autouse=True)
def nothing_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep what tests check out of the reader's own progress."""
    monkeypatch.setattr(remembered, "FILE", tmp_path / ".progress.json")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Keep a reader's own `.env` out of every test; called, it sets variables for one."""
    monkeypatch.setattr("dotenv.dotenv_values", lambda *args, **kwargs: {})

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables
