"""OpenTelemetry: what arrives at a real OTLP/HTTP receiver is what happened, and off means not even imported."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from production.otel import Telemetry, asked, served, streamed
from shared.agent import ModelError, Reply, Usage
from shared.config import SettingsError
from tests.chapter import FOLDER, ROOT

pytestmark = pytest.mark.anyio
REPLY = Reply("42", "gpt-4o-mini-2024-07-18", Usage(input_tokens=30, output_tokens=5), "stop")
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Receiver(ThreadingHTTPServer):
    """An OTLP/HTTP collector on a free port: it decodes what comes, and keeps it."""

    def __init__(self) -> None:
        receiver = self
        self.spans: list[Any] = []
        self.metrics: dict[str, Any] = {}
        self.resources: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                receiver.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path == "/v1/traces":
            for batch in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(attributes(batch.resource))
                self.spans += [span for scope in batch.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics"
            for collected in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                metrics = [metric for scope in collected.scope_metrics for metric in scope.metrics]
                self.metrics |= {metric.name: metric for metric in metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        return [(attributes(point), point) for point in self.metrics[name].histogram.data_points]


def attributes(of: Any) -> dict[str, Any]:
    """Return attributes as Python's own values."""

    def plain(value: Any) -> Any:
        kind = value.WhichOneof("value")
        return [plain(v) for v in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {each.key: plain(each.value) for each in of.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    pytest.importorskip("opentelemetry.exporter.otlp", reason="production/requirements.txt is not installed")
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def telemetry(receiver: Receiver) -> Telemetry:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}/", "BUILD_SHA": "abc123"}
    made = Telemetry.from_environment(env)
    assert made
    return made


async def ask(agent: Any, message: str, conversation_id: str, *, model: str | None = None, **_: Any) -> Reply:
    if message == "fail":
        raise ModelError("model_busy", retry_after_s=1) from ValueError("my secret")
    return REPLY


async def stream(
    agent: Any, message: str, conversation_id: str, *, model: str | None = None, **_: Any
) -> AsyncIterator[str | Reply]:
    yield "4"
    yield "2"
    yield REPLY


def app_with(telemetry: Telemetry | None) -> FastAPI:
    app = FastAPI()
    traced_ask, traced_stream = asked(ask, telemetry), streamed(stream, telemetry)
    agent: Any = None

    @app.post("/v1/chat/{conversation}")
    async def chat(conversation: str, message: str) -> str:
        return (await traced_ask(agent, message, f"caller-1/{conversation}", model="gpt-4o-mini")).text

    @app.get("/stream")
    async def streaming() -> StreamingResponse:
        async def texts() -> AsyncIterator[str]:
            async for piece in traced_stream(agent, "hello", "caller-1/c-2", model="gpt-4o"):
                if isinstance(piece, str):
                    yield piece

        return StreamingResponse(texts())

    return app


async def requests(telemetry: Telemetry) -> None:
    transport = httpx.ASGITransport(served(app_with(telemetry), telemetry), raise_app_exceptions=False)
    async with telemetry.running(), httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answer = await http.post("/v1/chat/c-1?message=my+secret", headers={"traceparent": PARENT})
        assert answer.json() == "42"
        assert (await http.post("/v1/chat/c-1?message=fail")).status_code == 500
        assert (await http.get("/stream")).text == "42"
        assert (await http.request("BREW", "/nowhere")).status_code == 404


async def test_spans_arrive_with_the_names_of_the_conventions(receiver: Receiver, telemetry: Telemetry) -> None:
    await requests(telemetry)
    spans = receiver.spans
    assert sorted(span.name for span in spans) == [
        "GET /stream", "POST /v1/chat/{conversation}", "POST /v1/chat/{conversation}", "_OTHER",
        "chat gpt-4o", "chat gpt-4o-mini", "chat gpt-4o-mini",
    ]  # fmt: skip
    served_span = next(s for s in spans if s.name.startswith("POST") and s.parent_span_id)
    assert served_span.trace_id.hex() == PARENT.split("-")[1], "the caller's trace goes on"
    assert served_span.parent_span_id.hex() == PARENT.split("-")[2]
    about = attributes(served_span)
    assert (about["http.route"], about["http.response.status_code"]) == ("/v1/chat/{conversation}", 200)
    assert "error.type" not in about and served_span.kind == served_span.SPAN_KIND_SERVER

    call = next(s for s in spans if s.trace_id == served_span.trace_id and s is not served_span)
    assert call.parent_span_id == served_span.span_id and call.kind == call.SPAN_KIND_CLIENT
    assert attributes(call) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.conversation.id": "c-1",
        "gen_ai.usage.input_tokens": 30,
        "gen_ai.usage.output_tokens": 5,
    }
    resource = receiver.resources[0]
    assert (resource["service.name"], resource["service.version"]) == ("agent-service", "abc123")
    assert "secret" not in str(spans), "messages are people's"


async def test_failures_are_failures_in_the_trace(receiver: Receiver, telemetry: Telemetry) -> None:
    await requests(telemetry)
    call = next(s for s in receiver.spans if attributes(s).get("error.type") == "model_busy")
    assert call.status.code == call.status.STATUS_CODE_ERROR
    outer = next(s for s in receiver.spans if s.span_id == call.parent_span_id)
    assert attributes(outer)["http.response.status_code"] == 500
    assert outer.status.code == outer.status.STATUS_CODE_ERROR
    missing = next(s for s in receiver.spans if s.name == "_OTHER")
    assert attributes(missing)["http.response.status_code"] == 404
    assert missing.status.code == missing.status.STATUS_CODE_UNSET, "the caller's mistake is not our failure"


async def test_metrics_arrive_and_add_up(receiver: Receiver, telemetry: Telemetry) -> None:
    await requests(telemetry)
    assert set(receiver.metrics) == {
        "http.server.request.duration", "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
    }  # fmt: skip
    assert {receiver.metrics[name].unit for name in receiver.metrics} == {"s", "{token}"}
    served_by_status = {
        (about.get("http.route"), about["http.response.status_code"]): point.count
        for about, point in receiver.points("http.server.request.duration")
    }
    assert served_by_status == {
        ("/v1/chat/{conversation}", 200): 1, ("/v1/chat/{conversation}", 500): 1, ("/stream", 200): 1, (None, 404): 1
    }  # fmt: skip
    tokens = dict[str, float]()
    for about, point in receiver.points("gen_ai.client.token.usage"):
        kind = about["gen_ai.token.type"]
        tokens[kind] = tokens.get(kind, 0) + point.sum
        assert list(point.explicit_bounds)[:3] == [1, 4, 16]
    assert tokens == {"input": 60, "output": 10}
    calls = receiver.points("gen_ai.client.operation.duration")
    assert sorted((about["gen_ai.request.model"], about.get("error.type", "")) for about, _ in calls) == [
        ("gpt-4o", ""), ("gpt-4o-mini", ""), ("gpt-4o-mini", "model_busy")
    ]  # fmt: skip
    labels = {label for name in receiver.metrics for about, _ in receiver.points(name) for label in about}
    assert not {"gen_ai.conversation.id", "url.path"} & labels, "labels without end"


async def test_it_can_be_started_again(receiver: Receiver, telemetry: Telemetry) -> None:
    await requests(telemetry)
    await requests(telemetry)
    assert len(receiver.spans) == 14


async def test_a_collector_that_is_away_changes_no_answer() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp", reason="production/requirements.txt is not installed")
    telemetry = Telemetry.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert telemetry
    await requests(telemetry)


def test_off_gives_back_what_it_was_given_and_imports_nothing() -> None:
    assert Telemetry.from_environment({}) is None
    assert Telemetry.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}) is None
    app = app_with(None)
    assert served(app, None) is app
    assert asked(ask, None) is ask and streamed(stream, None) is stream
    code = (
        "import sys\n"
        f"sys.path[:0] = [{str(FOLDER)!r}, {str(ROOT)!r}]\n"
        "from production.otel import Telemetry\n"
        "assert Telemetry.from_environment({}) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_missing_packages_are_named_with_their_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)
    with pytest.raises(SettingsError, match=r"pip install -r production/requirements.txt"):
        Telemetry.from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


async def test_the_service_sends_what_it_does(receiver: Receiver, tmp_path: Path, environment: Any) -> None:
    from tests.production.test_app import service

    environment(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.server_port}")
    async with service(tmp_path) as (http, _):
        answer = await http.post("/v1/chat", json={"message": "What is 6 * 7?"}, headers={"traceparent": PARENT})
        assert "42" in answer.json()["response"]
        async with http.stream("POST", "/v1/chat/stream", json={"message": "What is 6 * 8?"}) as streamed_answer:
            assert "48" in "".join([text async for text in streamed_answer.aiter_text()])
        queued = await http.post("/v1/chat/queue", json={"message": "What is 6 * 9?"})
        assert queued.status_code == 202
        done = await http.get(f"/v1/status/{queued.json()['request_id']}?wait=5")
        assert "54" in done.text
    calls = [span for span in receiver.spans if span.name.startswith("chat ")]
    assert len(calls) == 3 and all(attributes(call)["gen_ai.usage.input_tokens"] > 0 for call in calls)
    outer = next(span for span in receiver.spans if span.name == "POST /v1/chat")
    assert outer.trace_id.hex() == PARENT.split("-")[1] and calls[0].trace_id == outer.trace_id
    assert {"POST /v1/chat/stream", "POST /v1/chat/queue"} <= {span.name for span in receiver.spans}
