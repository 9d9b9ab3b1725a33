"""What graceful shutdown costs: the gate per request, the exit of an idle server, the exit after the last answer.

The servers are real processes, plain uvicorn beside ours, in turns; the exit is timed from SIGTERM to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

import httpx
from exercise_3_19_5_solution import Gate, GracefulShutdown

from shared.config import CHAPTER, ROOT

REQUESTS = 2_000
ROUNDS = 3
PLAIN = "from shared.api import base_app as make"
OURS = "from exercise_3_19_5_solution import create_app as make"
SERVE = """
import sys, uvicorn
{how}
from shared.config import Settings
from shared.offline import OfflineModel
import httpx, openai
http = httpx.AsyncClient(transport=httpx.ASGITransport(OfflineModel(delay_s=0.5)))
client = openai.AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=http)
app = make(Settings(openai_api_key="k", api_keys=("k",)), client=client)
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


async def per_request() -> tuple[float, float]:
    """Return seconds for a call of a bare ASGI app and of the same behind the gate."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def nothing(message: Any = None) -> None:
        return None

    async def took(target: Any) -> float:
        scope = {"type": "http", "path": "/v1/chat"}
        began = time.perf_counter()
        for _ in range(REQUESTS):
            await target(scope, nothing, nothing)
        return (time.perf_counter() - began) / REQUESTS

    gate = Gate(app, shutdown=GracefulShutdown())
    rounds = [(await took(app), await took(gate)) for _ in range(200)]
    return min(bare for bare, _ in rounds), min(ours for _, ours in rounds)


def stop(how: str, requests: int) -> float:
    """Start a server, stop it by SIGTERM, and return the seconds to its end: from the signal, or the last answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join((str(CHAPTER), str(ROOT)))}
    process = subprocess.Popen([sys.executable, "-c", SERVE.format(how=how), str(port)], env=environment)
    base = f"http://127.0.0.1:{port}"
    for _ in range(400):
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"{base}/health")
            break
        time.sleep(0.05)
    time.sleep(1.0)  # the agent loads in a thread, and an unloaded one is waited for
    began = asyncio.run(answered(base, process, requests)) if requests else time.monotonic()
    if not requests:
        process.send_signal(signal.SIGTERM)
    process.wait(20)
    return time.monotonic() - began


async def answered(base: str, process: subprocess.Popen[bytes], requests: int) -> float:
    """Send SIGTERM while requests are in progress, and return when the last of them was answered."""
    async with httpx.AsyncClient(base_url=base, headers={"X-API-Key": "k"}, timeout=20) as http:
        await http.post("/v1/chat", json={"message": "hi"})
        sent = [asyncio.create_task(http.post("/v1/chat", json={"message": "hi"})) for _ in range(requests)]
        await asyncio.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        for response in await asyncio.gather(*sent):
            assert response.status_code in (200, 503)
        return time.monotonic()


def run() -> list[tuple[str, str, str, str]]:
    """Return rows of: what, ours, beside it, ratio and target."""
    bare, gated = asyncio.run(per_request())
    idle = [(stop(OURS, 0), stop(PLAIN, 0)) for _ in range(ROUNDS)]
    ours, plain = (statistics.median(times) for times in zip(*idle, strict=True))
    after = statistics.median(stop(OURS, 20) for _ in range(ROUNDS))
    added = f"+{(gated - bare) * 1e6:.2f} us (target 1 us)"
    return [
        (
            "the gate, per request",
            f"{gated * 1e6:.2f} us",
            f"without it {bare * 1e6:.2f} us",
            added,
        ),
        ("idle, SIGTERM to exit", f"{ours:.2f} s", f"plain uvicorn {plain:.2f} s", f"{ours / plain:.2f}x (target 1.5)"),
        ("20 requests in progress, last answer to exit", f"{after:.2f} s", "-", "target 0.3 s"),
    ]
