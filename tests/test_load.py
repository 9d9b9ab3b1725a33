"""Section 19.4 under load: real servers, real HTTP, fifty at once; no line is lost or torn, and counts are exact.

LOAD_REQUESTS=2000 sends more than the few hundred that `check-all` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from shared.offline import BadRequest
from tests.chapter import find
from tests.kit.app import App, Bench
from tests.kit.target import Target

REQUESTS = int(os.environ.get("LOAD_REQUESTS", "200"))
AT_ONCE = 50
WRITTEN_S = 20.0


@contextlib.contextmanager
def opened(bench: Bench, exercise: str) -> Iterator[App]:
    app = bench.open(Target.parse(str(find(exercise).path)))
    try:
        yield app
    finally:
        app.close()


def load(app: App) -> list[httpx.Response]:
    """Send the requests; return their responses."""

    async def send_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=AT_ONCE)
        headers = {"X-API-Key": app.key}
        async with httpx.AsyncClient(base_url=app.base, limits=limits, headers=headers, timeout=60) as http:
            bodies = [{"message": f"hello {n}", "conversation_id": f"c{n % 20}"} for n in range(REQUESTS)]
            return await asyncio.gather(*(http.post("/v1/chat", json=body) for body in bodies))

    return asyncio.run(send_all())


def until(holds: Callable[[], bool]) -> None:
    """Wait for what a process does after it has answered."""
    deadline = time.monotonic() + WRITTEN_S
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_19_4_1_loses_and_tears_no_line(bench: Bench) -> None:
    with opened(bench, "19.4.1") as app:
        assert app.process
        output = app.process.folder / "output"  # all of it: `app.output()` is the end of a long one
        skip = output.stat().st_size
        responses = load(app)
        until(lambda: output.read_bytes()[skip:].count(b"the request is over") == REQUESTS)
        lines = [json.loads(line) for line in output.read_bytes()[skip:].splitlines()]
    assert Counter(response.status_code for response in responses) == {200: REQUESTS}
    ids = {response.headers["x-request-id"] for response in responses}
    told = Counter((line["request_id"], line["message"]) for line in lines)
    said = ("the model is asked", "the model answered", "the request is over")
    assert told == {(id, message): 1 for id in ids for message in said} and len(ids) == REQUESTS


def test_19_4_2_counts_every_request_and_every_token(bench: Bench) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="tests/requirements.txt is not installed")
    with opened(bench, "19.4.2") as app:
        before = len(bench.model.model.calls)
        assert {response.status_code for response in load(app)} == {200}
        calls = list(bench.model.model.calls)[before:]
        seen: dict[str, Any] = app.send("GET", "/metrics", key=app.key).json()
        text = app.send("GET", "/metrics", key=app.key, headers={"Accept": "text/plain"}).text
    assert len(calls) == REQUESTS
    assert sum(minute["requests"] for minute in seen["requests_per_minute"]) == REQUESTS
    assert seen["response_time"]["samples"] == min(REQUESTS, 1000) and seen["top_errors"] == []
    assert sum(row["requests"] for row in seen["tokens_by_conversation"]) == REQUESTS
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["http_requests_total", "/v1/chat", "200", "POST"] == REQUESTS
    assert samples["http_request_duration_seconds_count",] == REQUESTS
    for kind in ("input", "output"):
        by_conversation = sum(row[f"{kind}_tokens"] for row in seen["tokens_by_conversation"])
        assert samples["gen_ai_tokens_total", kind] == by_conversation > REQUESTS


def test_19_4_3_sends_one_alert_and_counts_what_it_holds_back(bench: Bench) -> None:
    def refuse(messages: Any) -> str:
        raise BadRequest("The stand-in was told to fail.", status=500)

    with opened(bench, "19.4.3") as app:
        model, reply = bench.model.model, bench.model.model.reply
        model.reply = refuse
        try:
            assert Counter(response.status_code for response in load(app)) == {502: REQUESTS}
        finally:
            model.reply = reply
        until(lambda: "alert: error_rate" in app.output())
        seen: dict[str, Any] = app.send("GET", "/alerts", key=app.key).json()
        lines = [line for line in app.output().splitlines() if line.startswith("alert: ")]
    assert lines == ["alert: error_rate is firing: 100% of the last 10 requests failed (limit 20%)"]
    assert len(seen["recent"]) == 1 and seen["issues"]["error_rate"]["suppressed"] == REQUESTS - 10
