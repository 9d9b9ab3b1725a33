"""The operator's page: requests, response time, errors, queue, cache, costs and budget, live.

`/operator` is a page that holds no numbers: it asks for a key and polls the same address for JSON. Any caller's key
shows the service; costs are the caller's own, and everybody's for the operator's key, as at `/costs`.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exercise_2_19_5_solution import RequestQueue
from exercise_3_19_7_solution import page_policy
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from production.stores import ready
from shared.api import require_api_key

PAGE = Path(__file__).with_name("operator_page.html")
FRESH = {"Cache-Control": "no-store", "Vary": "Accept"}
router = APIRouter()


@router.get("/operator", response_model=None)
async def operator(request: Request) -> Response:
    """Show the page to a browser, and the numbers to a key."""
    if "text/html" in request.headers.get("Accept", "") and "X-API-Key" not in request.headers:
        html = PAGE.read_text(encoding="utf-8")
        policy = page_policy(html, connect_src="'self'", img_src="data:")
        return HTMLResponse(html, headers=FRESH | {"Content-Security-Policy": policy})
    caller = await require_api_key(request, request.headers.get("X-API-Key"))
    return JSONResponse(await numbers(request.app.state, caller), headers=FRESH)


async def numbers(state: Any, caller: str) -> dict[str, Any]:
    """Collect what the page shows; every part is an exercise's own report."""
    snapshot = state.metrics.snapshot().as_json()
    everybody = caller == state.config.operator
    costs = await state.stores.costs.get_full_dashboard(None if everybody else caller)
    checks = await ready(state.stores)
    stopping = state.shutdown.shutdown_requested
    return {
        "as_of": datetime.now(UTC).isoformat(timespec="seconds"),
        "build": state.config.build_sha,
        "status": "stopping" if stopping else "ready" if set(checks.values()) <= {"ok"} else "not ready",
        "dependencies": checks,
        "model_circuit": "open" if state.chat.breaker.is_open else "closed",
        "in_progress": state.shutdown.active_requests,
        "requests_per_minute": snapshot["requests_per_minute"],
        "response_time": snapshot["response_time"],
        "top_errors": snapshot["top_errors"],
        "alerts": state.monitor.report(),
        "queue": await queued(state.jobs),
        "cache": cached(state.chat.cache),
        "costs_of": "everybody" if everybody else "caller",
        "budget": costs["budget_status"],
        "hourly": costs["hourly_spending"],
        "projection": costs["projections"],
    }


async def queued(jobs: Any) -> dict[str, int] | None:
    """Count queued requests by state; None where the queue cannot tell."""
    if isinstance(jobs, RequestQueue):
        return dict(Counter(job.status for job in list(jobs.requests.values())))
    return dict(await jobs.counts()) if hasattr(jobs, "counts") else None


def cached(cache: Any) -> dict[str, Any] | None:
    """Report on the cache, if there is one."""
    return {"entries": len(cache), **vars(cache.stats), **cache.stats.rates()} if cache is not None else None
