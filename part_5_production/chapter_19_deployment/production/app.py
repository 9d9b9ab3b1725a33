"""The chapter's service, wired on one page: every class is an exercise's; only stores and endpoints are ours.

    make serve                                         embedded: one process, SQLite, the stand-in model
    uvicorn production.app:create_app --factory        in the chapter folder, with your own settings

A request passes, from outside to inside: request id, access log, metrics and alerts, security headers, trusted host,
body limit, drain gate; then key, rate limit, validation, defences, route, budget, cache, agent. The queue goes beside.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from exercise_1_19_2_solution import UnknownConversation
from exercise_1_19_4_solution import RequestIdMiddleware, RequestLogMiddleware, json_logging
from exercise_1_19_6_solution import SmartModelRouter
from exercise_2_19_2_solution import PROBLEM_JSON, BodyLimit, Problem, problem_details
from exercise_2_19_3_solution import as_settings
from exercise_2_19_4_solution import Metrics, MetricsMiddleware
from exercise_2_19_5_solution import QueuedRequest
from exercise_2_19_7_solution import OutputFilter
from exercise_3_19_4_solution import AlertCourier, AlertMiddleware, AlertMonitor
from exercise_3_19_5_solution import Budget, Gate, GracefulShutdown, StopSignals, flush_logs
from exercise_3_19_6_solution import FLUSH_S
from exercise_3_19_7_solution import PAGE, SecurityHeaders, page_policy, surround
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from production import looks, operator_page, routes
from production.alerts import Messenger
from production.chat import Chat
from production.otel import Telemetry, asked, served, streamed
from production.settings import Production
from production.stores import CLEANUP_S, Stores, open_stores, store_errors
from shared.agent import SYSTEM_PROMPT, ModelError, ask, build_agent, stream
from shared.api import base_app
from shared.config import environment
from shared.pricing import cost_usd

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ALWAYS_OPEN = frozenset(("/health", "/health/live", "/health/ready", "/metrics"))  # while the service drains
LOOKS = ALWAYS_OPEN | {"/costs", "/operator"}  # looking must not change what is seen
RETRY_STORE_S = 5
log = logging.getLogger(__name__)


def create_app(config: Production | None = None, *, client: AsyncOpenAI | None = None) -> FastAPI:
    """Build the service; the `config` defaults to the environment's, the `client` is made from the config."""
    config = config or Production.from_environment()
    telemetry = Telemetry.from_environment(environment())
    traced = asked(ask, telemetry), streamed(stream, telemetry)
    opened: concurrent.futures.Future[Stores] = concurrent.futures.Future()  # the agent loads in a thread meanwhile
    clients: list[AsyncOpenAI] = []

    def build(made: AsyncOpenAI, *, model: str) -> Any:
        from production.transport import over_aiohttp

        clients[:] = [made if client or config.offline else over_aiohttp(made)]
        return build_agent(clients[0], model=model, checkpointer=opened.result().saver)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        nonlocal opened
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(json_logging())
            stack.callback(flush_logs)
            if telemetry:
                await stack.enter_async_context(telemetry.running())
            try:
                stores = state.stores = await stack.enter_async_context(open_stores(config))
            except BaseException as error:
                opened.set_exception(error)
                raise
            opened.set_result(stores)
            state.agent.turn = stores.turn or state.agent.turn
            await state.agent.graph()
            if not client:
                stack.push_async_callback(clients[0].close)
            chat = state.chat = Chat(config, state.agent, stores, state.router, state.metrics, outgoing, *traced)
            chat.open(clients[0])
            gc.freeze()  # what start-up made stays: to look it all over takes 50 ms each time
            gc.enable()
            stack.callback(gc.unfreeze)

            async def work(request: QueuedRequest) -> str:
                return await chat.answer_queued(
                    request.caller, request.message, request.conversation_id, request.request_id
                )

            await stack.enter_async_context(messenger.running(stores.claims))
            await stack.enter_async_context(courier.running())
            await stack.enter_async_context(every(FLUSH_S, stores.costs.try_to_flush))
            state.jobs = await stack.enter_async_context(stores.open_jobs(work))
            stack.enter_context(StopSignals(state.shutdown, budget))
            yield
        opened = concurrent.futures.Future()  # for the next start

    app = base_app(as_settings(config), client, lifespan=lifespan, build=build, docs_url=None, redoc_url=None)
    state = app.state
    state.config, state.metrics, state.shutdown = config, Metrics(), GracefulShutdown()
    state.monitor, state.router = AlertMonitor(), SmartModelRouter(cost_usd=cost_usd)
    outgoing = OutputFilter(SYSTEM_PROMPT, config.api_keys)
    budget = Budget(config.notice_s, config.drain_s, CLEANUP_S, config.notice_s + config.drain_s + CLEANUP_S + 1)
    messenger = Messenger(config.alert_webhook_url)
    courier = AlertCourier(state.monitor, messenger.send)

    problem_details(app)
    told = app.exception_handlers[ModelError]

    async def name_the_error(request: Request, error: Exception) -> Any:
        request.scope["error"] = getattr(error, "code", None)
        return await told(request, error)  # type: ignore[misc]  # it is async

    app.add_exception_handler(ModelError, name_the_error)
    app.add_exception_handler(UnknownConversation, no_such_conversation)
    app.add_exception_handler(Exception, unexpected)
    for kind in store_errors(config):
        app.add_exception_handler(kind, store_is_down)
    app.include_router(routes.router)
    app.include_router(looks.router)
    app.include_router(operator_page.router)

    policy = page_policy(PAGE, connect_src="'self'", img_src="data:")

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": policy})

    surround(
        app,
        lambda inner: Gate(inner, shutdown=state.shutdown, always_open=ALWAYS_OPEN),
        BodyLimit,
        lambda inner: TrustedHostMiddleware(inner, allowed_hosts=config.allowed_hosts.split(","), www_redirect=False),
        SecurityHeaders,
        lambda inner: AlertMiddleware(inner, monitor=state.monitor, courier=courier),
        lambda inner: looks.Unless(LOOKS, inner, MetricsMiddleware(inner, metrics=state.metrics)),
        RequestLogMiddleware,
        RequestIdMiddleware,
        lambda inner: served(inner, telemetry),
    )
    return app


@contextlib.asynccontextmanager
async def every(seconds: float, work: Callable[[], None]) -> AsyncIterator[None]:
    """Do some work in a thread now and then, while the block runs."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            await asyncio.to_thread(work)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def problem(status: int, title: str, detail: str, **headers: str) -> JSONResponse:
    """Answer with a problem detail, the form of every error here."""
    told = Problem(title=title, status=status, detail=detail)
    return JSONResponse(told.model_dump(), status, headers, media_type=PROBLEM_JSON)


async def no_such_conversation(request: Request, error: Exception) -> JSONResponse:
    """Answer unknown and foreign ids alike."""
    return problem(404, "Not Found", "no such conversation")


async def store_is_down(request: Request, error: Exception) -> JSONResponse:
    """Answer 503: nothing was accepted, and a store that is down comes back."""
    request.scope["error"] = "store_unavailable"
    log.error("a store cannot be reached (%s)", type(error).__name__)
    headers = {"Retry-After": str(RETRY_STORE_S)}
    return problem(503, "Service Unavailable", "a store cannot be reached; try again", **headers)


async def unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer 500 without a word about why; the access log has it."""
    return problem(500, "Internal Server Error", "this should not have happened; the request's ID finds it in the log")
