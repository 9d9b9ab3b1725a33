"""What the queue costs: a job that does nothing, a look at its status, the way back of its result, a request's bytes.

Everything in one process and one run. The bare `asyncio.Queue` hands over a message and a future and nothing else;
taskiq's in-memory broker runs the same job. `?wait=` and polling every 50 ms fetch a result that takes 20 ms.
An unguessable ID, three times of day, the record and the two frozen views that callers and work get take about 1 us
together: as much as the whole bare queue. So 1.5 times of it is out of reach for a queue that tells what it does.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from typing import Any

import httpx
from exercise_2_19_5_solution import QueuedRequest, RequestQueue, create_app

from shared.config import Settings

JOBS = 10_000
ROUNDS = 5
LOOKS = 20_000


async def nothing(request: Any) -> str:
    return "done"


async def bare_queue() -> float:
    """Return seconds per job of an asyncio.Queue with a future, five workers."""
    queue: asyncio.Queue[tuple[asyncio.Future[str], str]] = asyncio.Queue()

    async def worker() -> None:
        while True:
            future, message = await queue.get()
            future.set_result(await nothing(message))

    workers = [asyncio.create_task(worker()) for _ in range(5)]
    began = time.perf_counter()
    futures = []
    for _ in range(JOBS):
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((future, "x"))
        futures.append(future)
    for future in futures:
        await future
    took = time.perf_counter() - began
    for task in workers:
        task.cancel()
    return took / JOBS


async def our_queue() -> float:
    """Return seconds per job of RequestQueue, five workers."""
    async with RequestQueue(work=nothing, capacity=JOBS, max_finished=JOBS) as queue:
        began = time.perf_counter()
        requests = [await queue.enqueue("x") for _ in range(JOBS)]
        for request in requests[-5:]:
            await queue.wait(request.request_id, 60)
        return (time.perf_counter() - began) / JOBS


async def taskiq_broker() -> float:
    """Return seconds per job of taskiq's in-memory broker."""
    from taskiq import InMemoryBroker

    broker = InMemoryBroker(max_async_tasks=5, max_stored_results=JOBS)
    task = broker.register_task(nothing, task_name="nothing")
    await broker.startup()
    jobs = JOBS // 10
    began = time.perf_counter()
    sent = [await task.kiq("x") for _ in range(jobs)]
    for one in sent:
        await one.wait_result(check_interval=0.001, timeout=10)
    took = time.perf_counter() - began
    await broker.shutdown()
    return took / jobs


async def look(waiting: int) -> tuple[float, float]:
    """Return seconds for a get_status and for a position found by scanning, with so many requests waiting."""
    never = asyncio.Event()

    async def block(request: QueuedRequest) -> str:
        await never.wait()
        return ""

    async with RequestQueue(1, work=block, capacity=waiting + 1, drain_s=0) as queue:
        ids = [(await queue.enqueue("x")).request_id for _ in range(waiting)]
        began = time.perf_counter()
        for number in range(LOOKS):
            await queue.get_status(ids[number % waiting])
        ours = (time.perf_counter() - began) / LOOKS
        began = time.perf_counter()
        sum(1 for job in queue.requests.values() if job.status == "queued" and job.seq < waiting - 1)
        scan = time.perf_counter() - began
        never.set()
        return ours, scan


async def bytes_per_request() -> tuple[float, float]:
    """Return the memory of a waiting and of a finished request with a message of one letter."""
    async with RequestQueue(work=nothing, capacity=JOBS, max_finished=JOBS) as queue:
        gc.collect()
        tracemalloc.start()
        for _ in range(JOBS):
            await queue.enqueue("x")
        waiting = tracemalloc.get_traced_memory()[0] / JOBS
        await queue.wait(next(reversed(queue.requests)), 60)
        gc.collect()
        finished = tracemalloc.get_traced_memory()[0] / JOBS
        tracemalloc.stop()
    return waiting, finished


async def latency() -> tuple[float, float]:
    """Return the median seconds from POST to result, long-polled and polled every 50 ms."""
    from openai import AsyncOpenAI

    from shared.offline import OfflineModel

    transport: Any = httpx.AsyncClient(transport=httpx.ASGITransport(OfflineModel(delay_s=0.02)))
    client = AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=transport)
    app = create_app(Settings(openai_api_key="k", api_keys=("k",)), client=client)
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench", headers={"X-API-Key": "k"})
    waited, polled = [], []
    async with app.router.lifespan_context(app), http, transport:
        await app.state.agent.graph()
        for _ in range(20):
            began = time.perf_counter()
            path = (await http.post("/v1/chat", json={"message": "hi"})).headers["location"]
            await http.get(f"{path}?wait=10")
            waited.append(time.perf_counter() - began)
            began = time.perf_counter()
            path = (await http.post("/v1/chat", json={"message": "hi"})).headers["location"]
            while (await http.get(path)).json()["status"] != "completed":  # noqa: ASYNC110  (what is measured)
                await asyncio.sleep(0.05)
            polled.append(time.perf_counter() - began)
    return statistics.median(waited), statistics.median(polled)


def run() -> list[tuple[str, str, str, str]]:
    """Return rows of: what, ours, beside it, ratio and target."""
    best = [min(asyncio.run(one()) for _ in range(ROUNDS)) * 1e6 for one in (our_queue, bare_queue)]
    taskiq = min(asyncio.run(taskiq_broker()) for _ in range(2)) * 1e6
    looks = {waiting: asyncio.run(look(waiting)) for waiting in (10, 10_000, 100_000)}
    waiting, finished = asyncio.run(bytes_per_request())
    waited, polled = asyncio.run(latency())
    few, many = looks[10][0] * 1e6, looks[100_000][0] * 1e6
    return [
        (
            "a job that does nothing",
            f"{best[0]:.1f} us",
            f"asyncio.Queue {best[1]:.1f} us",
            f"{best[0] / best[1]:.1f}x (target 1.5)",
        ),
        (
            "the same",
            f"{best[0]:.1f} us",
            f"taskiq in memory {taskiq:.0f} us",
            f"1/{taskiq / best[0]:.0f} (target 1/8)",
        ),
        (
            "get_status with position, 100,000 waiting",
            f"{many:.2f} us",
            f"10 waiting {few:.2f} us; a scan of 10,000 {looks[10_000][1] * 1e3:.1f} ms",
            f"{many / few:.1f}x (target: flat)",
        ),
        (
            "a result that takes 20 ms, POST to answer",
            f"?wait= {waited * 1e3:.0f} ms",
            f"polling every 50 ms {polled * 1e3:.0f} ms",
            f"{waited / polled:.2f}x (target 0.5)",
        ),
        (
            "memory of a request, without its texts",
            f"waiting {waiting:.0f} bytes",
            f"finished {finished:.0f} bytes",
            "-",
        ),
    ]
