"""From starting the process to the first `/health`, and to the first chat, beside a two-route script.

The two routes take and return the same kind of body as ours: a pydantic model on a route makes FastAPI import
pydantic.v1, which is a tenth of a start. Every round starts the three servers in turn.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.chapter import FOLDER
from tests.kit.target import KEPT

VERSIONS = ("langgraph", "openai")
ROUNDS = 7
POLL_S = 0.002
DEADLINE_S = 60.0
TWO_ROUTES = """
from fastapi import FastAPI
from pydantic import BaseModel

class ChatRequest(BaseModel):
    message: str

class ChatResponse(BaseModel):
    response: str

def create_app():
    app = FastAPI()

    @app.get("/health")
    async def health():
        return {"status": "healthy"}

    @app.post("/v1/chat")
    async def chat(body: ChatRequest) -> ChatResponse:
        return ChatResponse(response=body.message)

    return app
"""
OURS = "from exercise_3_19_2_solution import create_app\n"
AT_THE_TOP = "import langgraph.graph\nimport openai\nimport shared.offline\n" + OURS


def run() -> list[tuple[str, str, str, str]]:
    """Measure three servers in turn, to the first answer and to the first chat."""
    sources = {"two_routes": TWO_ROUTES, "ours": OURS, "at_the_top": AT_THE_TOP}
    healthy: dict[str, list[float]] = {name: [] for name in sources}
    chatted: dict[str, list[float]] = {name: [] for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        for name, source in sources.items():
            (Path(folder) / f"{name}.py").write_text(source, encoding="utf-8")
        for round_ in range(ROUNDS + 1):
            for name in sources:
                first, chat = start(name, folder)
                if round_:  # the first one only fills the caches
                    healthy[name].append(first)
                    chatted[name].append(chat)
    health = {name: statistics.median(times) for name, times in healthy.items()}
    chat_ = {name: statistics.median(times) for name, times in chatted.items()}
    return [
        (
            "process start to `/health`",
            f"{health['ours']:.2f} s",
            f"two routes {health['two_routes']:.2f} s; importing at the top {health['at_the_top']:.2f} s",
            f"{health['ours'] / health['two_routes']:.2f} times two routes (at most 1.15)",
        ),
        (
            "process start to the first chat",
            f"{chat_['ours']:.2f} s",
            f"importing at the top {chat_['at_the_top']:.2f} s",
            f"{chat_['ours'] / chat_['at_the_top']:.2f} times importing at the top (at most 1.2)",
        ),
    ]


def start(module: str, folder: str) -> tuple[float, float]:
    """Start one server; return the seconds until it was healthy and until it had answered a chat."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    env = {**kept, "OFFLINE": "1", "PYTHONPATH": os.pathsep.join((str(FOLDER), str(FOLDER.parents[1])))}
    command = [sys.executable, "-m", "uvicorn", f"{module}:create_app", "--factory", "--port", str(port)]
    began = time.perf_counter()
    with subprocess.Popen([*command, "--log-level", "error"], cwd=folder, env=env) as process:
        try:
            until_answered(port, "GET", "/health", began)
            healthy = time.perf_counter() - began
            until_answered(port, "POST", "/v1/chat", began)
            return healthy, time.perf_counter() - began
        finally:
            process.terminate()


def until_answered(port: int, method: str, path: str, began: float) -> None:
    """Send a request until it is answered with 200."""
    headers = {"Content-Type": "application/json", "X-API-Key": "dev-key-change-in-production"}
    body = json.dumps({"message": "hello"}) if method == "POST" else None
    while time.perf_counter() - began < DEADLINE_S:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            return
        except ConnectionRefusedError:
            time.sleep(POLL_S)
        finally:
            connection.close()
    raise TimeoutError(f"no answer on {path}")
