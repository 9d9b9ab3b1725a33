"""The whole service beside the same agent served bare: hey at 1, 10, 50 and 100 connections, one model for all.

The model is the stand-in in a process of its own. Every request begins a conversation and misses the cache (CACHE=0),
but for the row of hits. BENCH_S=SECONDS says how long each figure is measured (5), BENCH_ONLY=WORD picks rows.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.chapter import FOLDER, ROOT
from tests.production.fleet import Instance, settings_of
from tests.production.servers import free_port, listens, new_database, postgres_server, redis_server

VERSIONS = ("langgraph", "openai", "uvicorn")
CONNECTIONS = (1, 10, 50, 100)
SECONDS = float(os.environ.get("BENCH_S", "5"))
ONLY = os.environ.get("BENCH_ONLY", "")
KEY = "bench-key-of-sixteen-letters"
BODY = '{"message": "What is 6 * 7?"}'
Rows = list[tuple[str, str, str, str]]
Figures = dict[int, tuple[float, float]]  # connections: answers a second, p99 in ms


def run() -> Rows:
    """Measure one service after the other."""
    rows: Rows = []
    with model() as url, model(0.5) as slow, tempfile.TemporaryDirectory() as folder:
        with plain(Path(folder), url) as port:
            bare = figures(port)
        rows += table("the same agent, bare", bare, bare, "")
        rows += compare("embedded, everything on", Path(folder), {}, url, 1, bare, "1.4")
        rows += compare("embedded, answered from the cache", Path(folder), {"CACHE": "1"}, url, 1, bare, "")
        with redis_server() as redis, postgres_server() as postgres:
            for workers in (1, 2, 4):
                database = new_database(postgres.port, f"bench{workers}")
                shared = {"REDIS_URL": f"redis://127.0.0.1:{redis.port}/0", "DATABASE_URL": database}
                name = f"Redis + PostgreSQL, {workers} workers"
                rows += compare(name, Path(folder), shared, url, workers, bare, "")
        rows += with_a_slow_model(Path(folder), slow)
    return [row for row in rows if ONLY in row[0]]


def compare(name: str, folder: Path, more: dict[str, str], url: str, workers: int, bare: Figures, target: str) -> Rows:
    """Measure one way of running the service."""
    if ONLY not in name:
        return []
    with ours(folder, url, workers, more) as port:
        return table(name, figures(port), bare, target)


def table(name: str, found: Figures, bare: Figures, target: str) -> Rows:
    """Write a row for each number of connections."""
    return [
        (
            f"{name}, {count} connections",
            f"{rate:.0f}/s, p99 {p99:.0f} ms",
            f"bare {bare[count][0]:.0f}/s, p99 {bare[count][1]:.0f} ms",
            f"{rate / bare[count][0]:.2f}x" + (f" (target {target})" if target and count == 10 else ""),
        )
        for count, (rate, p99) in found.items()
    ]


def with_a_slow_model(folder: Path, url: str) -> Rows:
    """Measure 100 connections to a model that takes half a second: the ideal is 200 answers a second."""
    name = "a model of 0.5 s, 100 connections"
    if ONLY not in name:
        return []
    with plain(folder, url) as port:
        bare = hey(port, 100)[0]
    with ours(folder, url, 1, {}) as port:
        rate = hey(port, 100)[0]
    return [(name, f"{rate:.0f}/s", f"bare {bare:.0f}/s", f"{rate / 200:.0%} of the ideal (target 70 %)")]


def figures(port: int) -> Figures:
    """Warm up, then measure at each number of connections."""
    hey(port, 10, 1.0)
    return {count: hey(port, count) for count in CONNECTIONS}


def hey(port: int, connections: int, seconds: float = SECONDS) -> tuple[float, float]:
    """Return answers with status 200 a second, and the 99th percentile in ms; raises where others came."""
    program = shutil.which("hey")
    if not program:
        raise SystemExit("the bench of production needs hey")
    command = [
        program, "-z", f"{seconds}s", "-c", str(connections), "-t", "60", "-m", "POST", "-T", "application/json",
        "-H", f"X-API-Key: {KEY}", "-d", BODY, f"http://127.0.0.1:{port}/v1/chat",
    ]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    statuses = dict(re.findall(r"\[(\d+)\]\s+(\d+) responses", said))
    if set(statuses) != {"200"}:
        raise SystemExit(f"not all were answered: {statuses or said}")
    total = re.search(r"Total:\s+([\d.]+) secs", said)
    p99 = re.search(r"99% in ([\d.]+) secs", said)
    assert total
    return int(statuses["200"]) / float(total[1]), 1000 * float(p99[1]) if p99 else 0.0


@contextlib.contextmanager
def model(delay_s: float = 0.0) -> Iterator[str]:
    """Run the stand-in in a process of its own."""
    port = free_port()
    with running([sys.executable, "-m", "shared.offline", "--port", str(port), "--delay", str(delay_s)], port):
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def plain(folder: Path, url: str) -> Iterator[int]:
    """Run the bare agent."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "tests.benches.plain_service:create_app", "--factory", "--port", str(port),
        "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip
    with running(command, port, OPENAI_BASE_URL=url):
        yield port


@contextlib.contextmanager
def running(command: list[str], port: int, **more: str) -> Iterator[None]:
    """Run a program until it listens, and end it."""
    paths = os.pathsep.join((str(ROOT), str(FOLDER)))
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": paths} | more)
    try:
        while not listens(port):
            if process.poll() is not None:
                raise SystemExit(f"{command[2]} did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def ours(folder: Path, url: str, workers: int, more: dict[str, str]) -> Iterator[int]:
    """Run the service with everything on."""
    state = {"STATE_DB": str(Path(tempfile.mkdtemp(dir=folder)) / "state.sqlite3")}
    routed = {"API_KEY": KEY, "RATE_LIMIT": "40000", "CACHE": "0"}
    settings = settings_of("", "", url, **state | routed | more)
    one = Instance(folder, f"bench-{free_port()}", free_port(), settings, workers)
    try:
        one.begin()
        one.wait()
        yield one.port
    finally:
        one.kill()
