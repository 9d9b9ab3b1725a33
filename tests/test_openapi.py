"""Schemathesis against the apps' own descriptions: whatever fits them or not, no 5xx and no undocumented answer."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import anyio.from_thread
import exercise_1_19_2_solution
import exercise_2_19_2_solution
import exercise_2_19_3_solution
import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shared.config import Settings

try:
    import schemathesis
    from schemathesis import GenerationMode
except ImportError:
    pytest.skip("schemathesis is not installed: tests/requirements.txt", allow_module_level=True)

KEY = "key-of-alice"
SETTINGS = Settings(openai_api_key="offline", offline=True, api_keys=(KEY,))
CONFIG = {"OFFLINE": "1", "API_KEY": KEY}
APPS = {
    "19.2.1": lambda: exercise_1_19_2_solution.create_app(SETTINGS),
    "19.2.2": lambda: exercise_2_19_2_solution.create_app(SETTINGS),
    "19.3.2": lambda: exercise_2_19_3_solution.create_app(exercise_2_19_3_solution.Config.from_environment(CONFIG)),
}
CASES = 40  # of each operation
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]


@contextlib.contextmanager
def served(app: Any) -> Iterator[Any]:
    """Run the app and a client to it on a loop of their own; yields a function that sends a request."""

    @contextlib.asynccontextmanager
    async def both() -> Any:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://app") as http,
        ):
            yield http

    with anyio.from_thread.start_blocking_portal() as portal, portal.wrap_async_context_manager(both()) as http:
        yield lambda **request: portal.call(lambda: http.request(**request))


@pytest.mark.parametrize("exercise", APPS)
def test_nothing_makes_an_app_fail_or_answer_what_its_description_does_not_know(exercise: str) -> None:
    app = APPS[exercise]()
    schema: Any = schemathesis.openapi.from_dict(app.openapi())
    operations = [found.ok() for found in schema.get_all_operations()]
    seen: dict[str, set[int]] = {operation.label: set() for operation in operations}
    turn = itertools.count()

    with served(app) as send:

        @settings(
            max_examples=CASES * len(operations),
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.one_of([each.as_strategy(generation_mode=mode) for each in operations for mode in GenerationMode]))
        def run(case: Any) -> None:
            if next(turn) % 8:
                case.headers["X-API-Key"] = KEY
            case.headers = {name: value for name, value in case.headers.items() if value.isascii()}
            response = send(**request(case))
            seen[case.operation.label].add(response.status_code)
            case.validate_response(response, checks=CHECKS)

        run()
    assert all({200, 204} & statuses for statuses in seen.values()), seen  # it got through to every operation


def request(case: Any) -> dict[str, Any]:
    """Return what httpx sends for a case."""
    given = case.as_transport_kwargs(base_url="http://app")
    kept = {name: given[name] for name in ("method", "url", "params", "headers", "json") if given.get(name) is not None}
    data = given.get("data")
    return kept | ({"content": data} if isinstance(data, bytes | str) else {"data": data} if data else {})
