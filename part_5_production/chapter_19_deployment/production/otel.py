"""OpenTelemetry: traces and metrics over OTLP/HTTP, when OTEL_EXPORTER_OTLP_ENDPOINT is set.

    telemetry = Telemetry.from_environment(environment())     None, and nothing imported, where it is not set
    app = served(app, telemetry)                              a span and a duration for each request
    ask, stream = asked(ask, telemetry), streamed(stream, telemetry)        ... and for each turn of the agent
    async with telemetry.running(): ...                       in lifespan

With None, each of the three returns what it was given: off costs nothing. Names and buckets are those of the semantic
conventions (https://opentelemetry.io/docs/specs/semconv/gen-ai/ and /http/). Neither messages nor the words of errors
are recorded: they are people's.

Limit: what the batch still holds is lost on kill -9, and spans beyond 2,048 waiting ones are dropped (the SDK's queue).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.agent import Agent, ModelError, Reply
from shared.config import SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    Ask = Callable[..., Awaitable[Reply]]
    Stream = Callable[..., AsyncIterator[str | Reply]]

__all__ = ["Telemetry", "asked", "served", "streamed"]

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORT_TIMEOUT_S = 2  # stopping has 5 s for cleaning up; a collector that is away must not take them
EXPORT_EVERY_MS = 15_000
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
SILENT: Any = {"record_exception": False, "set_status_on_exception": False}  # an error may quote its input
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Telemetry:
    """The tracer and the instruments while it is `running`. Its providers are its own: nothing global is set."""

    tracer: Any
    requests: Any
    calls: Any
    tokens: Any

    def __init__(self, endpoint: str, about: Mapping[str, str]) -> None:
        self._endpoint, self._about = endpoint.rstrip("/"), dict(about)
        try:
            import opentelemetry.exporter.otlp.proto.http
            import opentelemetry.sdk.metrics  # noqa: F401  (both are imported to be there)
        except ImportError as missing:
            remedy = f"{VARIABLE} is set, {missing.name} is not installed: pip install -r production/requirements.txt"
            raise SettingsError([remedy]) from missing

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Telemetry | None:
        """Return None unless the environment names a collector; raises SettingsError when the packages are missing.

        The SDK itself reads OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES and OTEL_TRACES_SAMPLER.
        """
        endpoint = env.get(VARIABLE, "").strip()
        about = {"service.name": env.get("OTEL_SERVICE_NAME", "agent-service")}
        if build := env.get("BUILD_SHA"):
            about["service.version"] = build
        return cls(endpoint, about) if endpoint else None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send to the collector; at the end send what is left, which takes some seconds at most."""
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create(self._about)
        traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        spans = OTLPSpanExporter(f"{self._endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_S)
        traces.add_span_processor(BatchSpanProcessor(spans))
        metrics = MeterProvider(
            [
                PeriodicExportingMetricReader(
                    OTLPMetricExporter(f"{self._endpoint}/v1/metrics", timeout=EXPORT_TIMEOUT_S),
                    export_interval_millis=EXPORT_EVERY_MS,
                    export_timeout_millis=1000 * EXPORT_TIMEOUT_S,
                )
            ],
            resource=resource,
            shutdown_on_exit=False,
            views=[
                View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(buckets))
                for name, buckets in (("*.duration", SECONDS), ("gen_ai.client.token.usage", TOKENS))
            ],
        )
        self.tracer, meter = traces.get_tracer("production"), metrics.get_meter("production")
        self.requests = meter.create_histogram("http.server.request.duration", "s", "Duration of requests")
        self.calls = meter.create_histogram("gen_ai.client.operation.duration", "s", "Duration of calls of the model")
        self.tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of calls of the model")
        try:
            yield
        finally:
            await asyncio.gather(asyncio.to_thread(traces.shutdown), asyncio.to_thread(metrics.shutdown))

    @contextlib.contextmanager
    def model_call(self, model: str, conversation_id: str) -> Iterator[Callable[[Reply], None]]:
        """Span one call of the model; what is yielded takes the reply."""
        from opentelemetry.trace import SpanKind, StatusCode

        named = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
        }
        began, outcome = time.perf_counter(), dict[str, str]()
        about = named | {"gen_ai.conversation.id": conversation_id.rpartition("/")[2]}
        with self.tracer.start_as_current_span(
            f"chat {model}", kind=SpanKind.CLIENT, attributes=about, **SILENT
        ) as span:

            def answered(reply: Reply) -> None:
                outcome["gen_ai.response.model"] = reply.model
                span.set_attribute("gen_ai.response.model", reply.model)
                if reply.finish_reason:
                    span.set_attribute("gen_ai.response.finish_reasons", [reply.finish_reason])
                if usage := reply.usage:
                    for kind, number in (("input", usage.input_tokens), ("output", usage.output_tokens)):
                        span.set_attribute(f"gen_ai.usage.{kind}_tokens", number)
                        self.tokens.record(number, named | outcome | {"gen_ai.token.type": kind})

            try:
                yield answered
            except BaseException as error:
                outcome["error.type"] = error.code if isinstance(error, ModelError) else type(error).__name__
                span.set_attribute("error.type", outcome["error.type"])
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                self.calls.record(time.perf_counter() - began, named | outcome)


def served(app: ASGIApp, telemetry: Telemetry | None) -> ASGIApp:
    """Wrap an app, so that each request is a span (a caller's `traceparent` is its parent) and a duration."""
    return Served(app, telemetry) if telemetry else app


class Served:
    """Pure ASGI: one span from a request's first to its last byte, named by the template of its route."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        known: dict[str, Any] = {"http.request.method": method, "url.scheme": scope.get("scheme", "http")}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        began, status = time.perf_counter(), 499

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        span: Span
        with self._telemetry.tracer.start_as_current_span(
            method,
            context=extract(headers),
            kind=SpanKind.SERVER,
            attributes=known | {"url.path": scope["path"]},
            **SILENT,
        ) as span:
            try:
                await self.app(scope, receive, watch)
            except BaseException as error:
                status = 500 if isinstance(error, Exception) else 499
                known["error.type"] = type(error).__name__
                raise
            finally:
                if route := getattr(scope.get("route"), "path", None):
                    known["http.route"] = route
                    span.update_name(f"{method} {route}")
                known["http.response.status_code"] = status
                if status >= 500:
                    known.setdefault("error.type", str(status))
                    span.set_status(StatusCode.ERROR)
                span.set_attributes(known)
                self._telemetry.requests.record(time.perf_counter() - began, known)


def asked(ask: Ask, telemetry: Telemetry | None) -> Ask:
    """Wrap `shared.agent.ask`."""
    if telemetry is None:
        return ask

    @functools.wraps(ask)
    async def traced(agent: Agent, message: str, conversation_id: str, *, model: str, **options: Any) -> Reply:
        with telemetry.model_call(model, conversation_id) as answered:
            reply = await ask(agent, message, conversation_id, model=model, **options)
            answered(reply)
            return reply

    return traced


def streamed(stream: Stream, telemetry: Telemetry | None) -> Stream:
    """Wrap `shared.agent.stream`."""
    if telemetry is None:
        return stream

    @functools.wraps(stream)
    async def traced(
        agent: Agent, message: str, conversation_id: str, *, model: str, **options: Any
    ) -> AsyncIterator[str | Reply]:
        with telemetry.model_call(model, conversation_id) as answered:
            pieces: Any = stream(agent, message, conversation_id, model=model, **options)
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, Reply):
                        answered(piece)
                    yield piece

    return traced
