"""19.5.1: the generator in virtual time against Little's law and numpy, the wire, the script, the document's sums."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import re
import selectors
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import numpy as np
import pytest
from exercise_1_19_5_solution import (
    COST_OF_A_CALL,
    LEVELS,
    LOOK_S,
    LOOKS,
    MAX_UNDER_WAY,
    PER_CLIENT,
    REPORT,
    SERVICE_S,
    SLOWER,
    STOP_S,
    TIMEOUT_S,
    WARM_UP,
    Answer,
    Level,
    chart,
    closed_loop,
    create_app,
    document,
    knee,
    main,
    measure,
    ms,
    open_loop,
    parse,
    percentile,
    run_hey,
    sender,
    served,
    summarize,
)
from hypothesis import given
from hypothesis import strategies as st

from shared.offline import OfflineModel
from tests.kit.serving import SETTINGS, client_of, serving

T = TypeVar("T")


class VirtualSelector(selectors.SelectSelector):
    """Waiting takes no time: the loop's clock jumps to where the next timer is."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for everything"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def server(service_s: float, limit: int = 10**6, stall: tuple[float, float] = (0, 0)) -> Callable[[], Awaitable[str]]:
    """Serve `limit` requests at a time, `service_s` each; nothing moves while it stalls."""
    places = asyncio.Semaphore(limit)

    async def send() -> str:
        loop = asyncio.get_running_loop()
        async with places:
            if stall[0] <= loop.time() < stall[1]:
                await asyncio.sleep(stall[1] - loop.time())
            await asyncio.sleep(service_s)
        return "200"

    return send


def test_the_defaults_are_the_stated_ones() -> None:
    assert LEVELS == (1, 2, 4, 8, 16, 32, 64)
    assert (PER_CLIENT, WARM_UP, SERVICE_S, SLOWER, TIMEOUT_S) == (15, 3, 0.2, 1.5, 10.0)
    assert (MAX_UNDER_WAY, COST_OF_A_CALL) == (1_000, 0.0002)
    assert (LOOKS, LOOK_S, STOP_S) == (600, 0.05, 10.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.integers(1, 100))
def test_property_a_percentile_is_numpys_inverted_cdf(values: list[float], q: int) -> None:
    expected = np.percentile(values, q, method="inverted_cdf")
    assert percentile(sorted(values), q) == expected


def test_edge_percentiles_of_one_value_and_of_q_zero() -> None:
    assert [percentile([7.0], q) for q in (0, 50, 100)] == [7.0] * 3
    assert percentile([1.0, 2.0], 0) == 1.0


@pytest.mark.parametrize(("service_s", "limit", "clients"), [(0.1, 4, 16), (0.25, 1, 5), (0.02, 10, 40)])
def test_littles_law_a_limited_server_gives_limit_over_service_time(service_s: float, limit: int, clients: int) -> None:
    level = summarize(clients, in_virtual_time(closed_loop(server(service_s, limit), clients, per_client=40)))
    assert level.throughput == pytest.approx(limit / service_s, rel=0.1)
    assert level.under_way == pytest.approx(clients, rel=0.1)
    assert level.requests == clients * 40


def test_an_unlimited_server_takes_its_service_time_and_no_more() -> None:
    level = summarize(8, in_virtual_time(closed_loop(server(0.5), 8)))
    assert level.p50_s == level.max_s == pytest.approx(0.5)
    assert level.throughput == pytest.approx(16)
    assert level.requests == 8 * PER_CLIENT


def test_a_stall_hides_from_a_closed_loop_and_not_from_an_open_one() -> None:
    stall = (5.0, 6.0)
    closed = summarize(1, in_virtual_time(closed_loop(server(0.01, 100, stall), 1, per_client=900, warm_up=0)))
    due = summarize(100, in_virtual_time(open_loop(server(0.01, 100, stall), 100, seconds=10)))
    assert closed.max_s == pytest.approx(1.0, abs=0.02)
    assert closed.p99_s == pytest.approx(0.01)  # one request of 900 has seen the stall
    assert due.p99_s > 0.85  # everybody who was due in that second
    assert (
        90
        <= sum(answer.took_s > 0.02 for answer in in_virtual_time(open_loop(server(0.01, 100, stall), 100, seconds=10)))
        <= 101
    )


def test_an_open_loop_keeps_its_rate_whatever_the_server_does() -> None:
    answers = in_virtual_time(open_loop(server(3.0), 10, seconds=2))
    assert [answer.due_s for answer in answers] == pytest.approx([number / 10 for number in range(20)])
    assert all(answer.took_s == pytest.approx(3.0) for answer in answers)


def test_edge_beyond_its_bound_an_open_loop_waits_and_the_waiting_counts() -> None:
    answers = in_virtual_time(open_loop(server(10.0), 1_000, seconds=2))
    assert sum(answer.took_s > 10.5 for answer in answers) == 1_000
    assert len(answers) == 2_000


def test_the_warm_up_is_not_measured() -> None:
    async def cold() -> str:
        cold_s.append(1.0 if len(cold_s) < 2 else 0.1)
        await asyncio.sleep(cold_s[-1])
        return "200"

    cold_s: list[float] = []
    level = summarize(1, in_virtual_time(closed_loop(cold, 1, per_client=5, warm_up=2)))
    assert (level.requests, len(cold_s)) == (5, 7)
    assert level.max_s == pytest.approx(0.1)
    cold_s.clear()
    answers = in_virtual_time(open_loop(cold, 10, seconds=1, warm_up_s=0.5))
    assert len(cold_s) == 15 and len(answers) == 10 and min(answer.due_s for answer in answers) == 0.5


def test_failures_are_counted_apart_and_are_no_throughput() -> None:
    answers = [Answer(outcome, n / 10, 0.1) for n, outcome in enumerate(["200", "503", "timeout", "200", "refused"])]
    level = summarize(5, answers)
    assert level.outcomes == {"200": 2, "503": 1, "refused": 1, "timeout": 1}
    assert level.failed == 3
    assert level.throughput == pytest.approx(2 / 0.5)
    assert level.under_way == pytest.approx(1.0)
    assert level.mean_s == pytest.approx(0.1)


def test_each_percentile_is_its_own_and_what_was_measured_stays() -> None:
    answers = [Answer("200", 0.0, n / 100) for n in range(1, 101)]
    level = summarize(1, answers)
    assert (level.p50_s, level.p95_s, level.p99_s, level.max_s) == (0.5, 0.95, 0.99, 1.0)
    for kept, name in ((answers[0], "took_s"), (level, "p99_s")):
        with pytest.raises(FrozenInstanceError):
            setattr(kept, name, 0.0)
    assert not hasattr(answers[0], "__dict__")  # there are many of them


def test_edge_nothing_measured_is_an_error() -> None:
    with pytest.raises(ValueError, match="no request was measured"):
        summarize(1, [])


def level(load: float, p95_s: float, **outcomes: int) -> Level:
    counts = {name.strip("_"): count for name, count in outcomes.items()} or {"200": 10}
    return Level(load, 10, 1.0, p95_s, p95_s, p95_s, p95_s, p95_s, counts, load)


def test_the_knee_is_the_last_load_before_it_slows_down() -> None:
    assert SLOWER == 1.5
    assert knee([level(1, 0.2), level(2, 0.2), level(4, 0.3), level(8, 0.31)]) == 4
    assert knee([level(8, 0.2), level(2, 0.3), level(1, 0.2), level(4, 0.4)]) == 2  # it has slowed down at 4
    assert knee([level(1, 0.2), level(2, 0.2, _200=9, _503=1), level(4, 0.2)]) == 1
    assert knee([level(1, 0.2, timeout=10)]) == 0
    assert knee([level(1, 0.2), level(2, 0.5)], slower=2.5) == 2


def test_the_knee_of_a_limited_server_is_its_limit() -> None:
    levels = [
        summarize(clients, in_virtual_time(closed_loop(server(0.1, 8), clients))) for clients in (1, 2, 4, 8, 16, 32)
    ]
    assert knee(levels) == 8


def test_the_chart_is_valid_svg_with_a_line_for_each_percentile() -> None:
    rising = [replace(level(load, 0.1), p95_s=0.1 * load, p99_s=0.2 * load) for load in (1, 2, 4)]
    for levels in (rising, rising[:1]):
        root = ElementTree.fromstring(chart(levels))
        lines = root.findall("{http://www.w3.org/2000/svg}polyline")
        assert len(lines) == 3
        heights = [[float(point.split(",")[1]) for point in line.get("points", "").split()] for line in lines]
        assert heights[1] == sorted(heights[1], reverse=True) and heights[2][0] < heights[1][0]


def test_the_chart_puts_loads_and_times_where_their_logarithms_are() -> None:
    levels = [replace(level(load, 0.2), p50_s=0.1, p99_s=0.4) for load in (2, 20, 200)]
    drawn = chart(levels)  # from 0.1 / 1.5 to 0.4 * 1.5, so that 0.2 is in the middle
    for said in (
        'viewBox="0 0 640 360"',
        'width="640" height="360" fill="white"',
        '<text x="320.0" y="348" text-anchor="middle">clients</text>',
        '<text x="60" y="318" text-anchor="middle">2</text>',
        '<text x="320" y="318" text-anchor="middle">20</text>',
        '<text x="580" y="318" text-anchor="middle">200</text>',
        'points="60.0,255.7 320.0,255.7 580.0,255.7"/>\n<text x="584" y="256" fill="#1b7837" font-size="10">p50 100 ms',
        'points="60.0,180.0 320.0,180.0 580.0,180.0"/>\n<text x="584" y="180" fill="#e08214" font-size="10">p95 200 ms',
        'points="60.0,104.3 320.0,104.3 580.0,104.3"/>\n<text x="584" y="104" fill="#b2182b" font-size="10">p99 400 ms',
    ):
        assert said in drawn
    assert ms(4.0) == "4000"
    assert 'points="60.0,' in chart(levels[1:2], "rate") and ">rate</text>" in chart(levels[1:2], "rate")


# ---------------------------------------------------------------- the wire


def test_a_connection_is_used_again_and_a_body_makes_it_a_post() -> None:
    lines: list[list[str]] = []
    handlers: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        lines.append([])
        while head := await reader.readline():
            lines[-1].append(head.decode().split()[0])
            length = 0
            while (header := await reader.readline()).strip():
                name, _, value = header.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def three(body: Any) -> list[str]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            async with sender(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", body=body) as send:
                outcomes = [await send() for _ in range(3)]
            await asyncio.gather(*handlers)
        handlers.clear()
        return outcomes

    for body, method in ((None, "GET"), ({}, "POST")):
        assert asyncio.run(three(body)) == ["204"] * 3
        assert lines.pop() == [method] * 3 and not lines


def test_failure_a_server_that_does_not_start_is_an_error() -> None:
    wrong: Any = "x"
    with pytest.raises(RuntimeError, match="ended with status 2"), served(wrong):
        pass


class Listener:
    """A server of one line: says the same bytes to everybody, or nothing at all."""

    def __init__(self, says: bytes | None) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        self.says, self.held = says, []  # type: tuple[bytes | None, list[socket.socket]]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.held.append(connection)
            connection.recv(65536)
            if self.says is not None:
                connection.sendall(self.says)
                connection.close()

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(5)
        for connection in self.held:
            connection.close()


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", "200"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", "broken off"),
        (None, "timeout"),
    ],
)
def test_failure_outcomes_are_told_apart(says: bytes | None, outcome: str) -> None:
    listener = Listener(says)

    async def once() -> list[str]:
        async with sender(listener.url, body={}, timeout_s=0.2) as send:
            return [await send(), await send()]

    try:
        assert asyncio.run(once()) == [outcome, outcome]
    finally:
        listener.close()


def test_failure_a_closed_port_is_a_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/"

    async def once() -> str:
        async with sender(url) as send:
            return await send()

    assert asyncio.run(once()) == "refused"


@pytest.mark.anyio
async def test_the_agent_is_loaded_before_the_first_request_is_measured() -> None:
    app = create_app(SETTINGS, client=client_of(OfflineModel()))
    async with serving(app):
        assert app.state.agent._loading.done()


@pytest.mark.anyio
async def test_http_the_api_under_test_is_the_plain_one() -> None:
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()))) as http:
        answer = await http.post("/v1/chat", json={"message": "What is 6 * 7?"})
        assert answer.json()["response"] == "[stand-in] 6 * 7 = 42"


def test_a_real_server_takes_the_stated_service_time() -> None:
    async def once(base: str) -> list[Answer]:
        async with sender(f"{base}/v1/chat", key="dev-key-change-in-production", body={"message": "hi"}) as send:
            return await closed_loop(send, 4, per_client=2, warm_up=1)

    with served(0.2) as base:
        assert int(base.rpartition(":")[2]) >= 1024, "a free port, given by the system"
        result = summarize(4, asyncio.run(once(base)))
    assert result.outcomes == {"200": 8}
    assert min(result.p50_s, result.mean_s) >= 0.2


@pytest.mark.skipif(not shutil.which("hey"), reason="hey is not installed")
def test_hey_beside_it_is_read_right() -> None:
    with served(0.1) as base:
        answers = run_hey(f"{base}/v1/chat", "dev-key-change-in-production", {"message": "hi"}, 4, 12)
        refused = run_hey(f"{base}/v1/chat", "wrong", {"message": "hi"}, 1, 2)
    result = summarize(4, answers)
    assert (result.outcomes, len(refused)) == ({"200": 12}, 2)
    assert result.p50_s >= 0.1 and result.max_s < 5
    assert {answer.outcome for answer in refused} == {"401"}
    with pytest.raises(subprocess.CalledProcessError):
        run_hey("http://127.0.0.1:9", "", None, 4, 1)  # more clients than requests


# ---------------------------------------------------------------- the script


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "http://example.org"], "is not this machine"),
        (["--url", "http://127.0.0.1.example.org:8000"], "is not this machine"),
        (["--levels", "0"], "must be positive"),
        (["--rate", "-1"], "must be positive"),
        (["--levels", "x"], "invalid"),
    ],
)
def test_abuse_what_should_not_run_is_a_usage_error(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_arguments_have_the_stated_defaults_and_bounds() -> None:
    args = parse([])
    assert (args.levels, args.requests, args.rate, args.seconds, args.service_s) == (LEVELS, 15, 20.0, 5.0, 0.2)
    assert (args.url, args.key, args.write) == (None, "dev-key-change-in-production", None)
    assert not (args.hey or args.yes or args.allow_remote or args.json or args.svg or args.serve)
    assert parse(["--write"]).write == REPORT
    assert parse(["--levels", "8,1,8,2"]).levels == (1, 2, 8)
    assert parse(["--levels", "1", "--requests", "1", "--rate", "0.5", "--seconds", "0.5"])
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert parse(["--url", f"http://{host}:8000"])
    assert parse(["--url", "http://example.org", "--allow-remote"])
    for none in ("--levels", "--requests", "--rate", "--seconds"):
        with pytest.raises(SystemExit):
            parse([none, "0"])


@pytest.mark.parametrize("with_hey", [False, True])
def test_everything_is_measured_as_it_was_asked_for(with_hey: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 1.5, 2.5), raising=False)
    opened: list[tuple[str, dict[str, Any]]] = []
    hey_ran: list[tuple[Any, ...]] = []
    said: list[str] = []
    chats: list[str] = []

    @contextlib.asynccontextmanager
    async def open_sender(url: str, **how: Any) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        opened.append((url, how))
        send = server(0.2)

        async def counted() -> str:
            chats.extend([url] * url.endswith("/v1/chat"))
            return await send()

        yield counted

    def hey(*how: Any) -> list[Answer]:
        hey_ran.append(how)
        return [Answer("200", 0.0, 0.1)] * 3

    args = parse(["--levels", "1,4", "--requests", "5", "--rate", "10", "--seconds", "2", "--key", "k"])
    found = in_virtual_time(
        measure(args, "http://x", said.append, open_sender=open_sender, hey=hey if with_hey else None)
    )
    body = {"message": "What is 6 * 7?"}
    assert opened == [
        ("http://x/health", {}),
        ("http://x/v1/chat", {"key": "k", "body": body, "timeout_s": TIMEOUT_S}),
    ]
    assert [(one.load, one.requests) for one in found["closed"]] == [(1, 5), (4, 20)]
    assert [(one.load, one.requests) for one in found["ceiling"]] == [(32, 960)]
    assert (found["open"].load, found["open"].requests) == (10, 20)
    assert len(chats) == (1 + 4) * (WARM_UP + 5) + 10 * (1 + 2)
    assert said == [
        "ceiling of this generator: 160 answers/s",
        "   1 clients      5.0 answers/s  p50    200 ms  p95    200 ms  failed 0",
        "   4 clients     20.0 answers/s  p50    200 ms  p95    200 ms  failed 0",
        "  10 per second  p50 200 ms  p99 200 ms",
    ]
    if with_hey:
        assert hey_ran == [
            ("http://x/health", "", None, 32, 3200),
            ("http://x/v1/chat", "k", body, 1, 5),
            ("http://x/v1/chat", "k", body, 4, 20),
        ]
        same = found["hey"]["with the same load"]
        assert [one.load for one in same] == [1, 4] and found["hey"]["against the same page"][0].load == 32
    else:
        assert found["hey"] == {}
    assert found["busy"] == 0.5


@pytest.mark.parametrize(("times", "distrusted"), [([1.0] * 10, False), ([1.0] * 5 + [0.1] * 5, True)])
def test_a_line_that_breaks_littles_law_is_not_trusted(times: list[float], distrusted: bool) -> None:
    said: list[str] = []

    @contextlib.asynccontextmanager
    async def open_sender(url: str, **how: Any) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        calls = itertools.count()

        async def send() -> str:
            await asyncio.sleep(times[next(calls) % 10])
            return "200"

        yield send

    args = parse(["--levels", "10", "--requests", "1", "--rate", "1", "--seconds", "1"])
    in_virtual_time(measure(args, "http://x", said.append, open_sender=open_sender))
    lines = [line for line in said if "distrust" in line]
    assert bool(lines) == distrusted
    assert not lines or lines == ["      Little's law: 5.5 under way with 10 clients: distrust this line"]


def test_before_calls_that_may_cost_money_it_asks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer_no(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer_no)
    assert main(["--url", "http://localhost:1", "--levels", "1,2", "--rate", "10", "--seconds", "1"]) == 2
    chats = 3 * (PER_CLIENT + 3) + 20
    assert f"{chats} chats, about {chats * 0.0002:.2f} dollars" in asked[0]
    assert "nothing was sent" in capsys.readouterr().out


def test_the_script_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {name: tmp_path / f"found.{name}" for name in ("md", "json", "svg")}
    arguments = ["--levels", "1,2", "--requests", "2", "--rate", "10", "--seconds", "0.5", "--service-s", "0.01"]
    status = main([*arguments, "--write", str(files["md"]), "--json", str(files["json"]), "--svg", str(files["svg"])])
    out = capsys.readouterr().out
    assert status == 0 and out.isascii()
    assert out.startswith("Exercise 1 (19.5): a load test that can be trusted.") and "0 requests failed" in out
    assert [found["load"] for found in json.loads(files["json"].read_text())["closed"]] == [1, 2]
    assert files["svg"].read_text().startswith("<svg")
    check_sums(files["md"].read_text())


# ---------------------------------------------------------------- the document


def rows(text: str, label: str) -> list[dict[str, str]]:
    """Return the rows of the first table whose first column has this label."""
    lines = iter(text.splitlines())
    names: list[str] = []
    found = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith(f"| {label} |") and not names:
            names = cells
            next(lines)
        elif names and line.startswith("|"):
            found.append(dict(zip(names, cells, strict=True)))
        elif names:
            break
    return found


def check_sums(text: str) -> None:
    """Hold what a document says against its own table."""
    closed = rows(text, "clients")
    best = 0
    slow = False
    for row in closed:
        times = [float(row[name]) for name in ("p50 ms", "p95 ms", "p99 ms", "max ms")]
        counts = {o: int(c) for c, o in re.findall(r"(\d+) x ([\w ]+)", row["outcomes"])}
        assert times == sorted(times)
        assert sum(counts.values()) == int(row["requests"])
        answered = sum(count for outcome, count in counts.items() if outcome.startswith("2"))
        arrivals = float(row["answers/s"]) * int(row["requests"]) / answered
        assert float(row["under way"]) == pytest.approx(arrivals * float(row["mean ms"]) / 1000, rel=0.05, abs=0.1)
        slow = slow or answered < int(row["requests"]) or times[1] > SLOWER * float(closed[0]["p95 ms"]) + 1
        best = best if slow else int(row["clients"])
    stated = re.search(r"\*\*(\d+)\.\*\*", text)
    assert stated and int(stated[1]) == best


def test_the_documents_sums_are_right() -> None:
    answers = [Answer("200", n / 7, random.Random(n).uniform(0.1, 0.2)) for n in range(50)]
    levels = [summarize(load, answers) for load in LEVELS]
    found = {
        "busy": 0.5,
        "closed": levels,
        "open": levels[0],
        "ceiling": levels[:1],
        "hey": {"against the same page": levels[:1]},
    }
    text = document(found, "python x.py", "a test")
    check_sums(text)
    assert math.isclose(float(rows(text, "rate")[0]["rate"]), levels[0].load)
    assert "load average before it was 0.5" in text
    assert "0 of 400 requests failed (400 x 200)" in text


def test_the_document_says_what_was_measured() -> None:
    def measured(load: float, p50_s: float, p95_s: float, throughput: float, **outcomes: int) -> Level:
        one = replace(level(load, p95_s, **outcomes), p50_s=p50_s, throughput=throughput, mean_s=p50_s / 2)
        return replace(one, requests=sum(one.outcomes.values()), p99_s=2 * p95_s, max_s=3 * p95_s)

    found = {
        "busy": 0.5,
        "closed": [
            measured(1, 0.11, 0.12, 9.5, _200=10),
            measured(2, 0.14, 0.16, 17.0, _200=20),
            measured(4, 0.3, 0.4, 12.25, _200=38, _503=2),
        ],
        "open": measured(5, 0.13, 0.14, 4.8, _200=24, timeout=1),
        "ceiling": [measured(32, 0.02, 0.03, 1_500.0, _200=960)],
        "hey": {},
    }
    text = document(found, "python x.py", "a test")
    for said in (
        "a test.\nWritten by `python x.py`.",
        "**2.** The rule: up to there nothing fails, and p95 is at most 1.5 times that of 1 client (120 ms).",
        "The most it answered was 17.0 requests per second, with 2 clients.",
        "3 of 95 requests failed (92 x 200, 2 x 503, 1 x timeout). A timeout is 10 s.",
        "From 1 to 4 clients p50 goes from 110 to 300 ms and p95 from 120 to 400 ms.",
        "Open loop (5 requests per second, whatever the server does):",
        "| 4 | 40 | 12.2 | 300 | 400 | 800 | 1200 | 150 | 4.0 | 38 x 200, 2 x 503 |",
        "| 5 | 25 | 4.8 | 130 | 140 | 280 | 420 | 65 | 5.0 | 24 x 200, 1 x timeout |",
    ):
        assert said in text
    assert "`hey`" not in text
    with_hey = document(found | {"hey": {"with more load": found["ceiling"]}}, "", "")
    assert "\n`hey`, with more load:\n\n| clients |" in with_hey and "`hey` is compiled" in with_hey


def test_our_own_documents_sums_are_right() -> None:
    text = REPORT.read_text(encoding="utf-8")
    check_sums(text)
    for question in ("How many concurrent requests", "What errors occur", "How response times change"):
        assert f"\n## {question}" in text
