"""The service's packages are not the learners': without them its tests are skipped, counted and named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PACKAGES = ("aiosqlite", "psycopg", "redis", "saq", "pgvector", "langgraph.checkpoint.sqlite")


def missing() -> list[str]:
    """Return which packages of production/requirements.txt are not there."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip with the reason."""
    if gone := missing():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"production/requirements.txt: no {', '.join(gone)}"))
