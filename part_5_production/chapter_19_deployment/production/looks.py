"""What operators look at: health, metrics, costs."""

from __future__ import annotations

from typing import Any

import exercise_2_19_4_solution as metrics_of
import exercise_3_19_6_solution as costs_of
from exercise_3_19_7_solution import page_policy
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from production.stores import ready
from shared.api import require_api_key

router = APIRouter()
FRESH = {"Cache-Control": "no-store", "Vary": "Accept"}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Unless:
    """Pure ASGI: `inner` for some paths, and the `layer` around it for all others."""

    def __init__(self, paths: frozenset[str], inner: ASGIApp, layer: ASGIApp) -> None:
        self._paths, self._inner, self._layer = paths, inner, layer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await (self._inner if scope.get("path") in self._paths else self._layer)(scope, receive, send)


@router.api_route("/health/live", methods=["GET", "HEAD"])
async def live() -> dict[str, str]:
    """Say that the process answers; it needs nothing else for that."""
    return {"status": "alive"}


@router.api_route("/health/ready", methods=["GET", "HEAD"])
async def readiness(request: Request) -> JSONResponse:
    """Ask every dependency; 503 while one is missing, or while the service stops."""
    state = request.app.state
    checks = await ready(state.stores)
    stopping = state.shutdown.shutdown_requested
    word = "stopping" if stopping else "ready" if set(checks.values()) <= {"ok"} else "not ready"
    breaker = "open" if state.chat.breaker.is_open else "closed"
    body = {"status": word, "build": state.config.build_sha, "dependencies": checks, "model_circuit": breaker}
    headers = {"Cache-Control": "no-store"} | ({} if word == "ready" else {"Retry-After": "5"})
    return JSONResponse(body, 200 if word == "ready" else 503, headers)


@router.get("/metrics", response_model=None)
async def metrics(request: Request) -> Response:
    """Show the metrics: a page for browsers, Prometheus' text, or JSON (this process)."""
    kind = metrics_of.best_type(request.headers.get("Accept", "*/*"))
    if kind == "text/html":
        return _page(metrics_of.PAGE)
    caller = await require_api_key(request, request.headers.get("X-API-Key"))
    state = request.app.state
    if kind == "text/plain":
        text = await state.stores.counters.combined(state.metrics.prometheus())
        return PlainTextResponse(text, headers=FRESH, media_type=PROMETHEUS)
    body: dict[str, Any] = state.metrics.snapshot(caller).as_json()
    cache = state.chat.cache
    counts = {"entries": len(cache), **vars(cache.stats), **cache.stats.rates()} if cache is not None else None
    more = {"cache": counts, "alerts": state.monitor.report(), "routing": state.chat.router.get_savings_report()}
    return JSONResponse(body | more, headers=FRESH)


@router.get("/costs", response_model=None)
async def costs(request: Request) -> Response:
    """Show the costs: a page for browsers, JSON for a key; the operator sees everybody's."""
    if "text/html" in request.headers.get("Accept", "") and "X-API-Key" not in request.headers:
        return _page(costs_of.PAGE)
    caller = await require_api_key(request, request.headers.get("X-API-Key"))
    state = request.app.state
    everybody = caller == state.config.operator
    return JSONResponse(await state.stores.costs.get_full_dashboard(None if everybody else caller), headers=FRESH)


def _page(path: Any) -> HTMLResponse:
    html = path.read_text(encoding="utf-8")
    return HTMLResponse(html, headers=FRESH | {"Content-Security-Policy": page_policy(html, connect_src="'self'")})
