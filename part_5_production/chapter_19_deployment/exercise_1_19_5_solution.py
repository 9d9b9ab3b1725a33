"""Exercise 1 (19.5): a load test that can be trusted.

The book asks how many concurrent requests the agent handles before it slows down, which errors occur under heavy load,
and how response times change with load. This script measures it and writes exercise_1_19_5_solution.md. Notice:

* `hey -c 5` is a closed loop: five clients, each waiting for its answer before it sends again. When the server stalls,
  they stop sending, and the requests that would have suffered are never made (coordinated omission).
* An open loop sends at a constant rate, as the public does, and counts from the moment a request was due: a stall of
  one second is then seen by everybody who was due in that second.
* Little's law checks the measuring: requests under way = throughput * mean latency. If they differ, distrust the rest.
* The generator has a ceiling of its own: it is measured first, against an empty page, and printed.

Run it:    python exercise_1_19_5_solution.py             (--help: another URL, levels, rate, files, hey beside it)
Check it:  make check EX=19.5.1                           (MINE=your_folder checks your document)

Limit: one process on the same machine as the server, so both share its cores; some 500 requests a second at most.
"""

import argparse
import asyncio
import contextlib
import csv
import datetime
import importlib.metadata
import json
import math
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared.agent import ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import DEFAULT_API_KEY, Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Answer", "Level", "chart", "closed_loop", "knee", "open_loop", "percentile", "summarize"]

LEVELS = (1, 2, 4, 8, 16, 32, 64)
PER_CLIENT = 15  # measured requests of each client, after those of the warm-up
WARM_UP = 3
SERVICE_S = 0.2  # what the stand-in model takes for an answer
SLOWER = 1.5  # "slowing down": p95 is this many times that of one client
TIMEOUT_S = 10.0
MAX_UNDER_WAY = 1_000  # of an open loop; what is due beyond it waits, and its waiting counts
COST_OF_A_CALL = 0.0002  # dollars: 100 tokens in and 300 out with gpt-4o-mini (0.15 and 0.60 dollars a million)
LOOKS = 600  # for the server that is started,
LOOK_S = 0.05  # one every so many seconds
STOP_S = 10.0  # for its end
REPORT = Path(__file__).with_suffix(".md")

Send = Callable[[], Awaitable[str]]  # sends one request; "200", or what came in place of an answer: "timeout", ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request; times in seconds, counted from when it was due (or, in a closed loop, sent)."""

    outcome: str
    due_s: float
    took_s: float


@dataclass(frozen=True)
class Level:
    """One load and what it did: times in seconds, `outcomes` counts statuses, timeouts and refusals apart."""

    load: float  # clients of a closed loop, requests per second of an open one
    requests: int
    throughput: float  # good answers per second
    mean_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float
    outcomes: dict[str, int]
    under_way: float  # by Little's law: arrivals per second times mean latency

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(count for outcome, count in self.outcomes.items() if not outcome.startswith("2"))


def percentile(ordered: Sequence[float], q: float) -> float:
    """Return the smallest value that at least `q` percent do not exceed: one that was really measured."""
    return ordered[max(0, math.ceil(q / 100 * len(ordered)) - 1)]


def ms(seconds: float) -> str:
    """Write a time in whole milliseconds."""
    return f"{seconds * 1000:.0f}"


def summarize(load: float, answers: Sequence[Answer]) -> Level:
    """Sum up one load; raises ValueError when nothing was measured."""
    if not answers:
        raise ValueError("no request was measured")
    took = sorted(answer.took_s for answer in answers)
    outcomes = Counter(answer.outcome for answer in answers)
    span_s = max(a.due_s + a.took_s for a in answers) - min(a.due_s for a in answers) or math.inf
    good = sum(count for outcome, count in outcomes.items() if outcome.startswith("2"))
    p50, p95, p99 = (percentile(took, q) for q in (50, 95, 99))
    return Level(
        load=load,
        requests=len(answers),
        throughput=good / span_s,
        mean_s=sum(took) / len(took),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        max_s=took[-1],
        outcomes=dict(sorted(outcomes.items())),
        under_way=sum(took) / span_s,
    )


async def closed_loop(
    send: Send, clients: int, *, per_client: int = PER_CLIENT, warm_up: int = WARM_UP
) -> list[Answer]:
    """Let `clients` send one request after the other; the first `warm_up` of each are not measured.

    Late to notice a stall: while a client waits, the requests it would have sent are missing from the result.
    """
    clock = asyncio.get_running_loop().time
    answers: list[Answer] = []

    async def client() -> None:
        for number in range(warm_up + per_client):
            began = clock()
            outcome = await send()
            if number >= warm_up:
                answers.append(Answer(outcome, began, clock() - began))

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


async def open_loop(send: Send, rate: float, *, seconds: float, warm_up_s: float = 0.0) -> list[Answer]:
    """Send `rate` requests per second, whatever the server does; each counts from the moment when it was due."""
    clock = asyncio.get_running_loop().time
    answers: list[Answer] = []
    places = asyncio.Semaphore(MAX_UNDER_WAY)
    start = clock()

    async def one(due: float) -> None:
        async with places:
            outcome = await send()
        if due - start >= warm_up_s:
            answers.append(Answer(outcome, due, clock() - due))

    async with asyncio.TaskGroup() as tasks:
        for number in range(round(rate * (warm_up_s + seconds))):
            due = start + number / rate
            await asyncio.sleep(due - clock())
            tasks.create_task(one(due))
    return answers


def knee(levels: Sequence[Level], slower: float = SLOWER) -> float:
    """Return the highest load before the service slows down.

    The rule: up to there every load had no failures, and a p95 of at most `slower` times that of the lowest load.
    """
    best = 0.0
    for level in sorted(levels, key=lambda level: level.load):
        if level.failed or level.p95_s > slower * min(levels, key=lambda level: level.load).p95_s:
            break
        best = level.load
    return best


def chart(levels: Sequence[Level], label: str = "clients") -> str:
    """Draw p50, p95 and p99 over the load as SVG, both axes logarithmic."""
    width, height, edge = 640, 360, 60
    loads = [level.load for level in levels]
    times = [value for level in levels for value in (level.p50_s, level.p99_s)]
    low, high = min(times) / 1.5, max(times) * 1.5

    def x(load: float) -> float:
        return edge + (width - 2 * edge) * math.log(load / loads[0]) / (math.log(loads[-1] / loads[0]) or math.inf)

    def y(seconds: float) -> float:
        return height - edge - (height - 2 * edge) * math.log(seconds / low) / math.log(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{width / 2}" y="{height - 12}" text-anchor="middle">{label}</text>',
    ]
    for load in loads:
        parts.append(f'<text x="{x(load):.0f}" y="{height - edge + 18}" text-anchor="middle">{load:g}</text>')
    for name, color in (("p50_s", "#1b7837"), ("p95_s", "#e08214"), ("p99_s", "#b2182b")):
        values = [getattr(level, name) for level in levels]
        points = " ".join(f"{x(load):.1f},{y(value):.1f}" for load, value in zip(loads, values, strict=True))
        parts.append(f'<polyline fill="none" stroke="{color}" stroke-width="2" points="{points}"/>')
        end = f"{name[:-2]} {ms(values[-1])} ms"
        parts.append(f'<text x="{width - edge + 4}" y="{y(values[-1]):.0f}" fill="{color}" font-size="10">{end}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


# ---------------------------------------------------------------- the wire


@contextlib.asynccontextmanager
async def sender(url: str, *, key: str = "", body: Any = None, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Send]:
    """Open clients for one URL; a body makes it a POST.

    Each connection has an httpx client of its own: one client with a pool of 32 connections is three times slower.
    """
    import httpx

    idle: list[httpx.AsyncClient] = []
    context = ssl.create_default_context()
    async with contextlib.AsyncExitStack() as opened:

        async def send() -> str:
            if not idle:
                client = httpx.AsyncClient(timeout=timeout_s, verify=context, headers={"X-API-Key": key} if key else {})
                idle.append(await opened.enter_async_context(client))
            http = idle.pop()
            try:
                response = await http.request("GET" if body is None else "POST", url, json=body)
            except httpx.TimeoutException:
                return "timeout"
            except httpx.ConnectError:
                return "refused"
            except httpx.TransportError:
                return "broken off"
            finally:
                idle.append(http)
            return str(response.status_code)

        yield send


def run_hey(url: str, key: str, body: Any, clients: int, requests: int) -> list[Answer]:
    """Let `hey` send the same load and return its answers; its times count from when each was sent."""
    command = ["hey", "-n", str(requests), "-c", str(clients), "-o", "csv"]
    if body is not None:
        command += ["-m", "POST", "-T", "application/json", "-H", f"X-API-Key: {key}", "-d", json.dumps(body)]
    run = subprocess.run([*command, url], capture_output=True, text=True, check=True)  # noqa: S603  (no shell)
    rows = csv.DictReader(run.stdout.splitlines())
    return [Answer(row["status-code"], float(row["offset"]), float(row["response-time"])) for row in rows]


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, service_s: float = SERVICE_S
) -> FastAPI:
    """Make the API of section 19.2, with a stand-in model that takes `service_s`, and an empty page beside it."""

    @contextlib.asynccontextmanager
    async def loaded(app: FastAPI) -> AsyncIterator[None]:
        await app.state.agent.graph()
        yield

    if client is None:
        import httpx
        from openai import AsyncOpenAI

        from shared.offline import OfflineModel

        settings = settings or Settings(openai_api_key="offline")
        http: Any = httpx.AsyncClient(transport=httpx.ASGITransport(OfflineModel(delay_s=service_s)))
        client = AsyncOpenAI(api_key="offline", base_url="http://stand-in/v1", http_client=http)
    app = base_app(settings, client, lifespan=loaded)

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    return app


@contextlib.contextmanager
def served(service_s: float) -> Iterator[str]:
    """Serve `create_app` in a process of its own and yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(port), "--service-s", str(service_s)]
    process = subprocess.Popen(command)  # noqa: S603  (this very file)
    try:
        for _ in range(LOOKS):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with status {process.returncode} before it was up")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(LOOK_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_S)


# ---------------------------------------------------------------- the report


def table(levels: Sequence[Level], label: str) -> list[str]:
    """Return a Markdown table, times in milliseconds."""
    lines = [
        f"| {label} | requests | answers/s | p50 ms | p95 ms | p99 ms | max ms | mean ms | under way | outcomes |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for level in levels:
        times = (level.p50_s, level.p95_s, level.p99_s, level.max_s, level.mean_s)
        outcomes = ", ".join(f"{count} x {outcome}" for outcome, count in level.outcomes.items())
        cells = [f"{level.load:g}", level.requests, f"{level.throughput:.1f}", *map(ms, times)]
        lines.append("| " + " | ".join(map(str, [*cells, f"{level.under_way:.1f}", outcomes])) + " |")
    return lines


def document(found: dict[str, Any], command: str, about: str) -> str:
    """Write the answers to the chapter's three questions from what was measured."""
    closed: list[Level] = found["closed"]
    steady: Level = found["open"]
    first, last, best = closed[0], closed[-1], max(closed, key=lambda level: level.throughput)
    failed = sum(level.failed for level in (*closed, steady))
    everything: Counter[str] = Counter()
    for level in (*closed, steady):
        everything.update(level.outcomes)
    counts = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(everything.items()))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    software = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("fastapi", "uvicorn", "httpx"))
    lines = [
        "# Exercise 1 (19.5): load test",
        "",
        f"Measured {today} on {os.cpu_count()} cores with Python {platform.python_version()}, {software}; {about}.",
        f"Written by `{command}`. The machine's load average before it was {found['busy']:.1f}: on a machine that has",
        "other work the figures say as much about that work; repeat them on a quiet one.",
        "",
        "Times of the closed loop count from when a request was sent, those of the open loop from when it was due.",
        "`under way` is arrivals per second times mean latency: by Little's law it has to be near the number of",
        "clients (below it while the last ones finish), or the measurement is wrong.",
        "",
        "## How many concurrent requests your agent handles before slowing down",
        "",
        f"**{knee(closed):g}.** The rule: up to there nothing fails, and p95 is at most {SLOWER:g} times that of "
        f"{first.load:g} client ({ms(first.p95_s)} ms).",
        f"The most it answered was {best.throughput:.1f} requests per second, with {best.load:g} clients.",
        "",
        "## What errors occur under heavy load",
        "",
        f"{failed} of {sum(everything.values())} requests failed ({counts}). A timeout is {TIMEOUT_S:g} s.",
        "",
        "## How response times change with load",
        "",
        f"From {first.load:g} to {last.load:g} clients p50 goes from {ms(first.p50_s)} to {ms(last.p50_s)} ms "
        f"and p95 from {ms(first.p95_s)} to {ms(last.p95_s)} ms.",
        "",
        "Closed loop (each client waits for its answer):",
        "",
        *table(closed, "clients"),
        "",
        f"Open loop ({steady.load:g} requests per second, whatever the server does):",
        "",
        *table([steady], "rate"),
        "",
        "## The generator's own ceiling",
        "",
        "Against a page that does nothing, with 32 clients; a result near it would measure the client:",
        "",
        *table(found["ceiling"], "clients"),
    ]
    for title, levels in found["hey"].items():
        lines += ["", f"`hey`, {title}:", "", *table(levels, "clients")]
    if found["hey"]:
        lines += [
            "",
            "`hey` is compiled and parses nothing, so its ceiling is higher, and it leaves the server more cores.",
            "Where they are short (at the highest loads), our figures are lower, and the truth is nearer to hey's.",
            "`hey` has no warm-up: its first requests open the connections and count, which is seen in max.",
        ]
    return "\n".join(lines) + "\n"


async def measure(
    args: argparse.Namespace,
    base: str,
    say: Callable[[str], None],
    *,
    open_sender: Callable[..., AbstractAsyncContextManager[Send]] = sender,
    hey: Callable[..., list[Answer]] | None = None,
) -> dict[str, Any]:
    """Run the whole test against `base`, with `hey` once more, and return what was found."""
    body = {"message": "What is 6 * 7?"}
    found: dict[str, Any] = {"closed": [], "ceiling": [], "hey": {}}
    async with open_sender(f"{base}/health") as empty:
        found["busy"] = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan  # Windows does not know
        found["ceiling"] = [summarize(32, await closed_loop(empty, 32, per_client=30))]
    say(f"ceiling of this generator: {found['ceiling'][0].throughput:.0f} answers/s")
    async with open_sender(f"{base}/v1/chat", key=args.key, body=body, timeout_s=TIMEOUT_S) as send:
        for clients in args.levels:
            level = summarize(clients, await closed_loop(send, clients, per_client=args.requests))
            found["closed"].append(level)
            say(
                f"{clients:4} clients  {level.throughput:7.1f} answers/s  p50 {ms(level.p50_s):>6} ms  "
                f"p95 {ms(level.p95_s):>6} ms  failed {level.failed}"
            )
            if level.under_way < 0.9 * clients:
                say(f"      Little's law: {level.under_way:.1f} under way with {clients} clients: distrust this line")
        steady = found["open"] = summarize(
            args.rate, await open_loop(send, args.rate, seconds=args.seconds, warm_up_s=1.0)
        )
    say(f"{args.rate:4g} per second  p50 {ms(steady.p50_s)} ms  p99 {ms(steady.p99_s)} ms")
    if hey:  # by now nothing else runs on this loop
        ceiling = hey(f"{base}/health", "", None, 32, 3200)
        same = [summarize(c, hey(f"{base}/v1/chat", args.key, body, c, c * args.requests)) for c in args.levels]
        found["hey"] = {"against the same page": [summarize(32, ceiling)], "with the same load": same}
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the arguments; usage errors end the program with status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="test this API; without it, the API of section 19.2 is started with the stand-in")
    parser.add_argument("--key", default=DEFAULT_API_KEY, help="its API key")
    parser.add_argument("--levels", default=LEVELS, type=lambda text: tuple(map(int, text.split(","))), metavar="1,2,4")
    parser.add_argument("--requests", default=PER_CLIENT, type=int, help="measured requests of each client")
    parser.add_argument("--rate", default=20.0, type=float, help="requests per second of the open loop")
    parser.add_argument("--seconds", default=5.0, type=float, help="length of the open loop")
    parser.add_argument("--service-s", default=SERVICE_S, type=float, help="what the stand-in takes for an answer")
    parser.add_argument("--write", type=Path, metavar="FILE.md", nargs="?", const=REPORT, help="write the document")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw the chart")
    parser.add_argument("--hey", action="store_true", help="run hey beside it, if it is installed")
    parser.add_argument("--yes", action="store_true", help="do not ask before calls that may cost money")
    parser.add_argument("--allow-remote", action="store_true", help="test a machine that is not this one")
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if min(args.levels) < 1 or args.requests < 1 or args.rate <= 0 or args.seconds <= 0:
        parser.error("levels, requests, rate and seconds must be positive")
    host = urllib.parse.urlsplit(args.url or "http://127.0.0.1").hostname
    if host not in ("127.0.0.1", "localhost", "::1") and not args.allow_remote:
        parser.error(f"{host} is not this machine: load tests hurt. If it is yours, add --allow-remote")
    args.levels = tuple(sorted(set(args.levels)))
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure; returns 1 when requests failed, 2 when nothing was measured."""
    args = parse(argv)
    if args.serve:
        import uvicorn

        uvicorn.run(create_app(service_s=args.service_s), port=args.serve, log_level="warning")
        return 0
    print((__doc__ or "").splitlines()[0])
    chats = sum(args.levels) * (WARM_UP + args.requests) + round(args.rate * (args.seconds + 1))
    if args.url and not args.yes:
        question = (
            f"{args.url}: {chats} chats, about {chats * COST_OF_A_CALL:.2f} dollars with a real key. Go on? [y/N] "
        )
        if not sys.stdin.isatty() or input(question).strip().lower() != "y":
            print("nothing was sent: say --yes to go on without being asked")
            return 2
    with contextlib.nullcontext(args.url.rstrip("/")) if args.url else served(args.service_s) as base:
        about = f"target {args.url}" if args.url else f"the API of 19.2 and a stand-in that takes {args.service_s:g} s"
        print(f"{about}; {chats} chats")
        hey = run_hey if args.hey and shutil.which("hey") else None
        found = asyncio.run(measure(args, base, lambda line: print(line, flush=True), hey=hey))
    closed: list[Level] = found["closed"]
    failed = sum(level.failed for level in (*closed, found["open"]))
    print(f"handles {knee(closed):g} at once before it slows down; {failed} requests failed")
    given = " ".join(sys.argv[1:] if argv is None else argv)
    if args.write:
        text = document(found, f"python {Path(__file__).name} {given}".strip(), about)
        args.write.write_text(text, encoding="utf-8")
    if args.json:
        figures = {name: [asdict(level) for level in found[name]] for name in ("closed", "ceiling")}
        args.json.write_text(json.dumps(figures | {"open": asdict(found["open"])}, indent=1) + "\n", encoding="utf-8")
    if args.svg:
        args.svg.write_text(chart(closed), encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
