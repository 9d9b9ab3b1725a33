"""Several processes are one service: limits, lists, costs, jobs and alerts hold over all, and any of them may die."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.offline import Fault
from tests.kit.serving import KEYS
from tests.kit.standin import StandIn
from tests.production.fleet import Instance, balancer, instances, settings_of

pytestmark = pytest.mark.anyio
HEADERS = {"X-API-Key": KEYS[0]}
CHAT = "/v1/chat"
PATIENCE = httpx.Timeout(60)


def client(url: str, **more: Any) -> httpx.AsyncClient:
    """Return a client that keeps no connection, so that each request may go to another instance."""
    limits = httpx.Limits(max_connections=30, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, headers=HEADERS, timeout=PATIENCE, limits=limits, **more)


@pytest.fixture
def needs_haproxy() -> None:
    """Skip where the balancer is not installed."""
    if not shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        pytest.skip("haproxy is not installed")


async def test_four_workers_let_exactly_ten_of_sixty_pass(
    tmp_path: Path, redis_url: str, database_url: str, model: StandIn
) -> None:
    settings = settings_of(redis_url, database_url, model.url, RATE_LIMIT="10")
    with instances(tmp_path, settings, count=1, workers=4) as (master,):
        async with client(f"http://127.0.0.1:{master.port}") as http:
            sent = (http.post(CHAT, json={"message": f"What is 6 * {n}?"}) for n in range(60))
            answers = await asyncio.gather(*sent)
    assert Counter(answer.status_code for answer in answers) == {200: 10, 429: 50}


async def test_three_instances_are_one_service(
    tmp_path: Path, redis_url: str, database_url: str, model: StandIn, needs_haproxy: None
) -> None:
    settings = settings_of(redis_url, database_url, model.url)
    with instances(tmp_path, settings) as fleet, balancer(tmp_path, [each.port for each in fleet]) as url:
        async with client(url) as http:
            # a conversation goes on wherever the next turn lands, also when turns come at once
            await http.post(CHAT, json={"message": "My name is Ada.", "conversation_id": "c"})
            turns = [http.post(CHAT, json={"message": "What is my name?", "conversation_id": "c"}) for _ in range(9)]
            assert all("Ada" in answer.json()["response"] for answer in await asyncio.gather(*turns))
            history = (await http.get("/v1/conversations/c")).json()["messages"]
            assert [each["role"] for each in history] == ["user", "assistant"] * 10

            # lists are the same everywhere
            await asyncio.gather(
                *(http.post(CHAT, json={"message": "hello", "conversation_id": f"n{n}"}) for n in range(12))
            )
            async with httpx.AsyncClient(headers=HEADERS, timeout=PATIENCE) as direct:
                pages = [
                    (await direct.get(f"http://127.0.0.1:{each.port}/v1/conversations?limit=50")).json()
                    for each in fleet
                ]
                assert pages[0] == pages[1] == pages[2]
                assert set(pages[0]["conversations"]) == {"c", *(f"n{n}" for n in range(12))}

                # an answer that one process has cached, the others find
                cached = [
                    await direct.post(f"http://127.0.0.1:{each.port}{CHAT}", json={"message": "Who wrote Hamlet?"})
                    for each in fleet
                ]
                assert len({answer.json()["response"] for answer in cached}) == 1

                # costs and counters add up
                calls = [call for call in model.model.calls if call.path.endswith("/chat/completions")]
                for each in fleet:
                    await direct.get(f"http://127.0.0.1:{each.port}/costs")  # writes what waits
                board = (await direct.get(f"http://127.0.0.1:{fleet[0].port}/costs")).json()
                counted = sum(
                    row["calls"] for row in board["spending_by_model"]["models"] if "embedding" not in row["model"]
                )
                assert counted == len(calls)
                plain = {"Accept": "text/plain"}
                for each in fleet:
                    text = (await direct.get(f"http://127.0.0.1:{each.port}/metrics", headers=plain)).text
                chats = [line for line in text.splitlines() if 'route="/v1/chat",status="200"' in line]
                assert sum(int(line.rpartition(" ")[2]) for line in chats) == 25


async def test_one_alert_for_an_issue_that_all_instances_see(
    tmp_path: Path, redis_url: str, database_url: str, model: StandIn
) -> None:
    received: list[bytes] = []
    heard = asyncio.Event()

    async def webhook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        received.append(await reader.readexactly(length))
        heard.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(webhook, "127.0.0.1", 0)
    hook = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    settings = settings_of(redis_url, database_url, model.url, ALERT_WEBHOOK_URL=hook)
    async with server:
        with instances(tmp_path, settings, count=2) as fleet:
            async with httpx.AsyncClient(headers=HEADERS, timeout=PATIENCE) as http:
                model.next(*(Fault(status=400) for _ in range(200)))
                for each in fleet:
                    for n in range(12):
                        answer = await http.post(
                            f"http://127.0.0.1:{each.port}{CHAT}",
                            json={"message": f"What is 6 * {n}?", "conversation_id": f"{each.port}-{n}"},
                        )
                        assert answer.status_code == 502
                await asyncio.wait_for(heard.wait(), 30)
            statuses = [each.terminate() for each in fleet]  # sends what is still waiting
    assert len([body for body in received if b"error_rate" in body]) == 1
    assert all(status in (0, 143, -15) for status in statuses)


async def enqueue(http: httpx.AsyncClient, conversation: str, number: int) -> str:
    """Queue a message until it is accepted, always under the same key; returns the request ID."""
    body = {"message": f"What is {number} * 1?", "conversation_id": conversation}
    for _ in range(200):
        try:
            answer = await http.post(
                f"{CHAT}/queue", json=body, headers={"Idempotency-Key": f"{conversation}-{number}"}
            )
            if answer.status_code == 202:
                return str(answer.json()["request_id"])
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise AssertionError("it was never accepted")


async def test_killing_an_instance_under_load_loses_no_accepted_job_and_no_finished_answer(
    tmp_path: Path, redis_url: str, database_url: str, model: StandIn, needs_haproxy: None
) -> None:
    model.model.delay_s = 0.05
    settings = settings_of(redis_url, database_url, model.url)
    finished: list[str] = []

    with instances(tmp_path, settings) as fleet, balancer(tmp_path, [each.port for each in fleet]) as url:
        async with client(url) as http:

            async def jobs(conversation: str) -> list[str]:
                return [await enqueue(http, conversation, number) for number in range(2, 10)]

            async def chats(number: int) -> None:
                for turn in range(4):
                    try:
                        body = {"message": f"What is 6 * {turn}?", "conversation_id": f"chat-{number}-{turn}"}
                        if (await http.post(CHAT, json=body)).status_code == 200:
                            finished.append(f"chat-{number}-{turn}")
                    except httpx.TransportError:
                        pass  # it was on its way through the one that died

            busy = asyncio.Event()

            def watched(messages: list[Any]) -> str:
                if len(model.model.calls) >= 12:
                    loop.call_soon_threadsafe(busy.set)
                return said(messages)

            said, loop = model.model.reply, asyncio.get_running_loop()
            model.model.reply = watched

            async def kill_one() -> None:
                await asyncio.wait_for(busy.wait(), 60)
                fleet[0].kill()

            accepted, _, _ = await asyncio.gather(
                asyncio.gather(*(jobs(f"j{n}") for n in range(4))),
                asyncio.gather(*(chats(n) for n in range(4))),
                kill_one(),
            )
            for number, ids in enumerate(accepted):
                answers = [await final(http, request_id) for request_id in ids]
                assert [answer["status"] for answer in answers] == ["completed"] * 8
                history = (await http.get(f"/v1/conversations/j{number}")).json()["messages"]
                asked = [each["content"] for each in history if each["role"] == "user"]
                assert asked == [f"What is {n} * 1?" for n in range(2, 10)]  # each once, in order
                assert len(history) == 16
            for conversation in finished:
                answer = await http.get(f"/v1/conversations/{conversation}")
                assert len(answer.json()["messages"]) == 2, conversation
    assert finished


async def final(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    """Wait for the result."""
    async with asyncio.timeout(90):
        while True:
            answer: dict[str, Any] = (await http.get(f"/v1/status/{request_id}?wait=20")).json()
            if answer["status"] not in ("queued", "processing"):
                return answer


async def test_a_rolling_restart_under_load_answers_every_request(
    tmp_path: Path, redis_url: str, database_url: str, model: StandIn, needs_haproxy: None
) -> None:
    model.model.delay_s = 0.1
    settings = settings_of(redis_url, database_url, model.url, NOTICE_S="0.6")
    statuses: Counter[int] = Counter()
    over = asyncio.Event()

    async def load(http: httpx.AsyncClient, number: int) -> None:
        while not over.is_set():
            answer = await http.post(CHAT, json={"message": "What is 6 * 7?", "conversation_id": f"r{number}"})
            statuses[answer.status_code] += 1
            assert answer.status_code in (200, 429, 503), answer.text
            assert answer.status_code == 200 or "retry-after" in answer.headers

    def restart(each: Instance) -> int:
        status = each.terminate()
        each.begin()
        each.wait()
        return status

    with instances(tmp_path, settings, count=2) as fleet, balancer(tmp_path, [each.port for each in fleet]) as url:
        async with client(url) as http:
            loads = [asyncio.create_task(load(http, number)) for number in range(4)]
            ended = [await asyncio.to_thread(restart, each) for each in fleet]
            over.set()
            await asyncio.gather(*loads)
    assert statuses[200] > 10
    assert all(status in (0, 143, -15) for status in ended)
