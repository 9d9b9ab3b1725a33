"""The whole service beside the same agent served bare: hey at 1, 10, 50 and 100 connections, one model for all.

The model is the stand-in in a process of its own. Every request begins a conversation and misses the cache (CACHE=0),
but for the rows about the cache. Services are measured in turns, so that what slows one down slows down the other.

BENCH_S=SECONDS says how long each figure is measured (4, twice), BENCH_ONLY=WORD picks parts by their names:
embedded, hot path, cache, middleware, slow model, stores, shared. BENCH_SOAK=SECONDS measures memory in place of these.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

from tests.benches import production_parts as parts
from tests.chapter import FOLDER, ROOT
from tests.production.fleet import Instance, settings_of
from tests.production.servers import free_port, listens, new_database, postgres_server, redis_server

README = FOLDER / "production" / "README.md"
VERSIONS = ("langgraph", "openai", "aiohttp", "uvicorn")
CONNECTIONS = (1, 10, 50, 100)
SECONDS = float(os.environ.get("BENCH_S", "4"))
ONLY = os.environ.get("BENCH_ONLY", "")
SOAK_S = float(os.environ.get("BENCH_SOAK", "0"))
ROUNDS = 2
KEY = "bench-key-of-sixteen-letters"
BODY = '{"message": "What is 6 * 7?"}'
Rows = list[tuple[str, str, str, str]]
Figure = tuple[float, float]  # answers a second, p99 in ms


def run() -> Rows:
    """Measure one part after the other; one that fails says so in its row and does not take the others with it."""
    rows: Rows = []
    with model() as url, model(0.5) as slow, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Callable[[], Rows]] = {
            "embedded": lambda: embedded(folder, url),
            "hot path": lambda: hot_path(folder, url),
            "cache": lambda: cache(folder, url),
            "middleware": lambda: parts.timed(parts.middleware),
            "slow model": lambda: slow_model(folder, slow),
            "stores": lambda: stores(url),
            "shared": lambda: shared(folder, url),
        }
        if SOAK_S:
            return soak(folder, url)
        for part, measure in found.items():
            if ONLY not in part:
                continue
            began = time.monotonic()
            try:
                more = measure()
            except (SystemExit, RuntimeError, OSError) as error:
                more = [(part, f"not measured: {error}"[:200].replace("\n", " "), "", "")]
            for row in more:
                print(f"{time.monotonic() - began:4.0f} s  {' | '.join(row)}", flush=True)
            rows += more
    print()
    return rows


def embedded(folder: Path, url: str) -> Rows:
    """Measure one process with everything on, and the bare agent."""
    with plain(folder, url) as bare, ours(folder, url) as port:
        return table("embedded, everything on", *in_turns(CONNECTIONS, bare, port))


def table(name: str, bare: list[Figure], found: list[Figure]) -> Rows:
    """Write a row for each number of connections."""
    targets = {10: " (1.4x)", 100: " (p99 at most 2x)"} if name.startswith("embedded") else {}
    return [
        (
            f"{name}, {count} connections",
            shown(ours),
            f"bare {shown(plain)}",
            f"{ours[0] / plain[0]:.2f}x" + (f", p99 {ours[1] / plain[1]:.1f}x" if count == 100 else "")
            + targets.get(count, ""),
        )
        for count, plain, ours in zip(CONNECTIONS, bare, found, strict=True)
    ]  # fmt: skip


def hot_path(folder: Path, url: str) -> Rows:
    """Measure what aiohttp and one checkpoint a turn do for the bare agent."""
    with plain(folder, url) as bare, plain(folder, url, FAST="1") as fast:
        (before,), (after,) = in_turns((10,), bare, fast)
    ratio = f"{after[0] / before[0]:.2f}x (1.7x)"
    return [("the same agent over aiohttp, one checkpoint a turn, 10 connections", shown(after), shown(before), ratio)]


def cache(folder: Path, url: str) -> Rows:
    """Measure answers from the cache: over HTTP, and by themselves."""
    with ours(folder, url) as misses, ours(folder, url, CACHE="1") as hits:
        (miss,), (hit,) = in_turns((10,), misses, hits)
    ratio = f"{hit[0] / miss[0]:.1f}x"
    return [("answered from the cache, 10 connections", shown(hit), f"a miss {shown(miss)}", ratio), *parts.cache(url)]


def slow_model(folder: Path, url: str) -> Rows:
    """Measure 100 connections to a model that takes half a second: the ideal is 200 answers a second."""
    with plain(folder, url) as bare, ours(folder, url) as port:
        (before,), (after,) = in_turns((100,), bare, port)
    ideal = f"{after[0] / 200:.0%} of the ideal (70 %), bare {before[0] / 200:.0%}"
    return [("a model of 0.5 s, 100 connections", shown(after), f"bare {shown(before)}", ideal)]


def stores(url: str) -> Rows:
    """Measure the calls of the stores."""
    with redis_server() as redis, postgres_server() as postgres:
        address = f"redis://127.0.0.1:{redis.port}/0"
        return parts.store_calls(url, address, new_database(postgres.port, "calls"))


def shared(folder: Path, url: str) -> Rows:
    """Measure several processes on Redis and PostgreSQL."""
    rows: Rows = []
    with redis_server() as redis, postgres_server() as postgres, plain(folder, url) as bare:
        for workers in (1, 2, 4):
            database = new_database(postgres.port, f"bench{workers}")
            both = {"REDIS_URL": f"redis://127.0.0.1:{redis.port}/0", "DATABASE_URL": database}
            with ours(folder, url, workers, **both) as port:
                name = f"Redis + PostgreSQL, {workers} worker{'s' * (workers > 1)}"
                rows += table(name, *in_turns(CONNECTIONS, bare, port))
    return rows


def soak(folder: Path, url: str) -> Rows:
    """Keep one process busy, and print its memory ten times: it should be flat after the warm-up."""
    seen: list[float] = []
    with ours(folder, url, CACHE="1") as port, ours(folder, url) as missing:
        for turn in range(11):
            hit, miss = hey(port, 10, SOAK_S / 22), hey(missing, 10, SOAK_S / 22)
            seen.append(memory(missing))
            print(f"{turn:2}  {miss[0]:.0f}/s, hits {hit[0]:.0f}/s  {seen[-1]:.0f} MB, hits {memory(port):.0f} MB")
    grown = f"{seen[-1] - seen[1]:+.0f} MB after warm-up"
    return [(f"a soak of {SOAK_S:.0f} s, 10 connections", f"{seen[1]:.0f} MB, then {seen[-1]:.0f} MB", "", grown)]


def memory(port: int) -> float:
    """Return the resident memory of whoever listens on a port, in MB."""
    found = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    pid = re.search(r"pid=(\d+)", found)
    status = Path(f"/proc/{pid[1] if pid else 'nobody'}/status").read_text(encoding="ascii")
    resident = re.search(r"VmRSS:\s+(\d+)", status)
    return int(resident[1]) / 1024 if resident else 0.0


def in_turns(connections: tuple[int, ...], *ports: int) -> list[list[Figure]]:
    """Measure services in turns, after warming up; returns a figure per number of connections for each."""
    for port in ports:
        hey(port, 10, 1.0)
    found: list[list[Figure]] = [[] for _ in ports]
    for count in connections:
        rounds = [[hey(port, count) for port in ports] for _ in range(ROUNDS)]
        for figures, of_one in zip(found, zip(*rounds, strict=True), strict=True):
            figures.append((fmean(rate for rate, _ in of_one), fmean(p99 for _, p99 in of_one)))
    return found


def shown(figure: Figure) -> str:
    """Write a figure."""
    return f"{figure[0]:.0f}/s, p99 {figure[1]:.0f} ms"


def hey(port: int, connections: int, seconds: float = SECONDS) -> Figure:
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
def plain(folder: Path, url: str, **more: str) -> Iterator[int]:
    """Run the bare agent."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "tests.benches.plain_service:create_app", "--factory", "--port", str(port),
        "--log-level", "warning", "--no-access-log",
    ]  # fmt: skip
    with running(command, port, OPENAI_BASE_URL=url, **more):
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
def ours(folder: Path, url: str, workers: int = 1, **more: str) -> Iterator[int]:
    """Run the service with everything on."""
    state = {"STATE_DB": str(Path(tempfile.mkdtemp(dir=folder)) / "state.sqlite3")}
    routed = {"API_KEY": KEY, "RATE_LIMIT": "100000", "CACHE": "0"}
    settings = settings_of("", "", url, **state | routed | more)
    one = Instance(folder, f"bench-{free_port()}", free_port(), settings, workers)
    try:
        one.begin()
        one.wait()
        yield one.port
    finally:
        one.kill()
