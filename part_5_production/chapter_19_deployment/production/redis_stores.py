"""What many processes share in Redis: rate limits, the queue, alert claims, counters.

The queue's jobs run on SAQ. Compared in 2026 on upkeep, delivery and asyncio:

* Celery: the best kept; workers are processes or threads of their own, and a coroutine needs a bridge.
* arq: asyncio and exactly this size, but in maintenance only since 2024.
* taskiq: asyncio, well kept; delivery depends on the broker, its Redis list loses what a killed worker held.
* SAQ: asyncio, well kept, runs inside our event loop; a job moves to a list of active ones, and what was active in a
  killed worker is found by its missing heartbeat and run again: at least once. Chosen.

None keeps an order per conversation. So a Lua script keeps a line per conversation, and only its first goes to SAQ.
"At least once" becomes "answered once" because the first result is kept, and because a turn taken twice is one turn.

Limit: one Redis without cluster; what Redis confirmed and loses (AOF everysec: a second) is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import redis.asyncio as redis
from exercise_2_19_5_solution import CAPACITY, KEEP_S, STOP_S, IdempotencyConflict, QueuedRequest, QueueFull
from exercise_3_19_2_solution import WINDOW_S, Window
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from saq import Worker
from saq.queue.redis import RedisQueue

from production.settings import Production
from production.stores import JOBS_DRAIN_S, Jobs, Stores, Work

TIMEOUT_S = 3.0  # for one answer of Redis
CONNECTIONS = 32  # of one process, for what takes no time
ATTEMPTS = 3  # of one job; then it takes its process down each time
HEARTBEAT_S = 10
LOOK_S = 2.0  # how often the lines are looked over for what a killed process left undone
KEEP_COUNTERS_S = 24 * 3600
KEEP_QUANTILES_S = 300  # what a process that is no longer asked has left does not hold for longer
log = logging.getLogger(__name__)

NOW = "local t = redis.call('TIME'); local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or (t[1] + t[2] / 1e6)"

# Times in whole microseconds, which doubles hold exactly. A hit that is sent again, because the answer to it was lost,
# is found by its name and not counted twice.
HIT = """
local t = redis.call('TIME')
local now = ARGV[1] ~= '' and tonumber(ARGV[1]) or (t[1] * 1e6 + t[2])
local limit, window = tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
local used = redis.call('ZCARD', KEYS[1])
local accepted = redis.call('ZSCORE', KEYS[1], ARGV[4]) and 1 or 0
if accepted == 0 and used < limit then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[4])
    redis.call('PEXPIRE', KEYS[1], math.ceil(window / 1000))
    accepted, used = 1, used + 1
end
local oldest = tonumber(redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2])
return {accepted, limit - used, string.format('%.0f', window - (now - oldest))}
"""

# Keys: line of the conversation, job, idempotency key. All lines: `line` (waiting, by arrival), `heads` (may start).
ENQUEUE = f"""{NOW}
if ARGV[8] ~= '' then
    local known = redis.call('GET', KEYS[3])
    if known then return {{'known', known}} end
end
if redis.call('EXISTS', KEYS[2]) == 1 then return {{'known', ARGV[4]}} end  -- the answer to the first try was lost
if redis.call('ZCARD', ARGV[2] .. 'line') >= tonumber(ARGV[3]) then return {{'full', ''}} end
redis.call('HSET', KEYS[2], 'request_id', ARGV[4], 'caller', ARGV[5], 'conversation_id', ARGV[6], 'message', ARGV[7],
    'status', 'queued', 'created_at', string.format('%.6f', now), 'idempotency_key', ARGV[8])
if ARGV[8] ~= '' then redis.call('SET', KEYS[3], ARGV[4]) end
redis.call('ZADD', ARGV[2] .. 'line', redis.call('INCR', ARGV[2] .. 'seq'), ARGV[4])
if redis.call('RPUSH', KEYS[1], ARGV[4]) == 1 then
    redis.call('SADD', ARGV[2] .. 'heads', ARGV[4])
    return {{'head', ARGV[4]}}
end
return {{'waits', ARGV[4]}}
"""

START = f"""{NOW}
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'processing' then
    redis.call('SREM', ARGV[2] .. 'heads', ARGV[3])
    return 0
end
if redis.call('SISMEMBER', ARGV[2] .. 'heads', ARGV[3]) == 0 then return 0 end
redis.call('ZREM', ARGV[2] .. 'line', ARGV[3])
redis.call('HSET', KEYS[1], 'status', 'processing', 'started_at', string.format('%.6f', now))
return redis.call('HINCRBY', KEYS[1], 'attempts', 1)
"""

FINISH = f"""{NOW}
local status = redis.call('HGET', KEYS[2], 'status')
if status ~= 'queued' and status ~= 'processing' then return {{0, ''}} end
redis.call('HSET', KEYS[2], 'status', ARGV[4], 'finished_at', string.format('%.6f', now), 'result', ARGV[5],
    'error', ARGV[6])
redis.call('EXPIRE', KEYS[2], ARGV[7])
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('EXPIRE', KEYS[3], ARGV[7]) end
redis.call('ZREM', ARGV[2] .. 'line', ARGV[3])
redis.call('LREM', KEYS[1], 1, ARGV[3])
local was_head = redis.call('SREM', ARGV[2] .. 'heads', ARGV[3])
local next = redis.call('LINDEX', KEYS[1], 0)
if was_head == 1 and next then
    redis.call('SADD', ARGV[2] .. 'heads', next)
    return {{1, next}}
end
return {{1, ''}}
"""


class RedisLimits:
    """Accepts at most `limit` hits per key in any window, over all processes; exact, by the clock of Redis."""

    def __init__(
        self,
        client: redis.Redis,
        limit: int,
        window_s: float = WINDOW_S,
        *,
        prefix: str = "",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.limit, self.window_s = limit, window_s
        self._prefix, self._clock = f"{prefix}limit:", clock
        self._hit, self._down = client.register_script(HIT), False

    async def hit(self, key: str) -> tuple[bool, Window]:
        """Count one request; raises RedisError while Redis is away, so nobody passes: logged once."""
        now = str(round(self._clock() * 1e6)) if self._clock else ""
        values: list[Any] = [now, self.limit, round(self.window_s * 1e6), secrets.token_hex(8)]
        try:
            accepted, left, reset = await self._hit([self._prefix + key], values)
        except redis.RedisError:
            if not self._down:
                log.exception("the rate limits cannot be read: requests are refused until Redis is back")
            self._down = True
            raise
        self._down = False
        return bool(accepted), Window(self.limit, self.window_s, int(left), max(0.0, float(reset) / 1e6))


class RedisClaims:
    """Claims over all processes."""

    def __init__(self, client: redis.Redis, *, prefix: str = "") -> None:
        self._client, self._prefix = client, f"{prefix}claim:"

    async def claim(self, name: str, for_s: float) -> bool:
        """Claim a name."""
        return bool(await self._client.set(self._prefix + name, "1", nx=True, px=math.ceil(for_s * 1000)))

    async def give_back(self, name: str) -> None:
        """Let others claim it."""
        await self._client.delete(self._prefix + name)


class RedisCounters:
    """Adds up what all processes count. Each leaves its text here, and what a dead one counted stays for a day."""

    def __init__(self, client: redis.Redis, *, prefix: str = "", name: str | None = None) -> None:
        self._client, self._key = client, f"{prefix}counters"
        self._name = name or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    async def publish(self, own: str) -> None:
        """Leave the text."""
        await self._client.hset(self._key, self._name, f"{time.time()}\n{own}")

    async def combined(self, own: str) -> str:
        """Leave the text, and return the sum of all; of a quantile, which cannot be added up, the slowest recent one's.

        So the quantile is an upper bound: the one over all requests lies between the processes' own.
        """
        await self.publish(own)
        sums: dict[str, float] = {}
        texts: Any = await self._client.hgetall(self._key)
        for name, text in texts.items():
            written, _, lines = text.decode().partition("\n")
            if time.time() - float(written) > KEEP_COUNTERS_S:
                await self._client.hdel(self._key, name.decode())
                continue
            for line in lines.splitlines():
                series, _, value = line.rpartition(" ")
                if line.startswith("#"):
                    sums.setdefault(line, math.nan)
                elif "quantile=" not in series:
                    sums[series] = sums.get(series, 0.0) + float(value)
                elif time.time() - float(written) < KEEP_QUANTILES_S:
                    sums[series] = max(sums.get(series, 0.0), float(value))
        return exposition(sums)


def exposition(sums: dict[str, float]) -> str:
    """Write series in Prometheus' text format, each family below its type."""
    lines: list[str] = []
    for kind in [line for line in sums if line.startswith("#")]:
        family = kind.split()[2]
        lines.append(kind)
        for series, value in sums.items():
            name = series.partition("{")[0]
            if name == family or name in (f"{family}_sum", f"{family}_count"):
                lines.append(f"{series} {int(value) if value == int(value) else value!r}")
    return "\n".join(lines) + "\n"


class RedisJobs:
    """The queue of exercise 2 in section 19.5 over all processes; see the head of this file."""

    def __init__(
        self,
        client: redis.Redis,
        work: Work,
        *,
        prefix: str = "",
        capacity: int = CAPACITY,
        concurrent: int = 5,
        timeout_s: float = 120.0,
        heartbeat_s: int = HEARTBEAT_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._client, self._work, self._prefix = client, work, f"{prefix}jobs:"
        self._capacity, self._concurrent = capacity, concurrent
        self._timeout_s, self._heartbeat_s, self._look_s = timeout_s, heartbeat_s, look_s
        self._queue = RedisQueue(client, name=f"{prefix}answers", max_concurrent_ops=50)
        scripts = (ENQUEUE, START, FINISH)
        self._enqueue, self._start, self._finish = (client.register_script(script) for script in scripts)
        self._service_s, self._open = 1.0, True

    # ------------------------------------------------------------ for callers

    async def enqueue(
        self, message: str, *, caller: str, conversation_id: str | None = None, idempotency_key: str | None = None
    ) -> QueuedRequest:
        """Accept a request; raises QueueFull and IdempotencyConflict."""
        if not self._open:
            raise QueueFull("the service is stopping", math.ceil(JOBS_DRAIN_S))
        request_id, key = secrets.token_hex(16), idempotency_key or ""
        conversation_id_of_job = conversation_id or request_id
        answer, known = await self._enqueue(
            [self._line(caller, conversation_id_of_job), self._job(request_id), self._key(caller, key)],
            ["", self._prefix, self._capacity, request_id, caller, conversation_id_of_job, message, key],
        )
        if answer == b"full":
            raise QueueFull(f"{self._capacity} requests are waiting", self._seconds_for(1))
        if answer == b"head":
            with contextlib.suppress(redis.RedisError):  # it was accepted; whoever looks over the lines will start it
                await self._hand_over(request_id)
        request = await self._view(known.decode())
        if request is None:
            raise redis.ResponseError("an accepted request is gone")
        if answer == b"known" and (request.message, request.conversation_id) != (
            message,
            conversation_id or request.request_id,
        ):
            raise IdempotencyConflict
        return request

    async def wait(self, request_id: str, timeout_s: float, *, caller: str) -> QueuedRequest | None:
        """Say how a request stands, when it is final or `timeout_s` later; None if it is unknown or foreign."""
        until, pause = time.monotonic() + timeout_s, 0.02
        while True:
            request = await self._view(request_id)
            if request is None or request.caller != caller:
                return None
            left = until - time.monotonic()
            if request.finished_at is not None or left <= 0:
                return request
            await asyncio.sleep(min(left, pause))
            pause = min(0.5, pause * 1.5)

    async def cancel(self, request_id: str, *, caller: str) -> QueuedRequest | None:
        """Cancel a request that is not final yet; one that is being worked on is stopped within a second."""
        request = await self.wait(request_id, 0, caller=caller)
        if request and request.finished_at is None:
            await self._end(request, "cancelled")
            if request.status == "processing" and (job := await self._queue.job(request_id)):
                await job.abort("cancelled")
            request = await self._view(request_id)
        return request

    async def counts(self) -> dict[str, int]:
        """Count the requests of all processes that have no answer yet."""
        line, heads = f"{self._prefix}line", f"{self._prefix}heads"
        queued: int = await self._client.zcard(line)
        started: int = await self._client.scard(heads) - await self._client.zintercard(2, [line, heads])
        return {"queued": queued, "processing": max(0, started)}

    def retry_after_s(self, request: QueuedRequest) -> int:
        """Estimate in how many whole seconds it pays to ask again; 0 when the request is final."""
        return 0 if request.finished_at else self._seconds_for((request.position or 0) + self._concurrent)

    # ------------------------------------------------------------ the work

    async def _answer(self, context: Any, *, request_id: str) -> None:
        job = context["job"]
        attempts = await self._start([self._job(request_id)], ["", self._prefix, request_id])
        request = await self._view(request_id) if attempts else None
        if request is None:
            return
        if attempts > ATTEMPTS:
            log.error("request %s ended its process %d times and is given up", request_id, ATTEMPTS)
            await self._end(request, "failed", error="interrupted")
            return
        beat = asyncio.create_task(self._beat(job))
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await self._work(request)
        except TimeoutError:
            await self._end(request, "failed", error="timeout")
        except redis.RedisError:
            raise  # no answer of the model's: another process will try
        except Exception as error:
            code = str(getattr(error, "code", None) or "internal_error")
            log.exception("request %s failed: %s", request_id, code)
            await self._end(request, "failed", error=code)
        else:
            await self._end(request, "completed", result=result)
        finally:
            beat.cancel()
            self._service_s += 0.2 * (time.monotonic() - began - self._service_s)

    async def _end(self, request: QueuedRequest, status: str, *, result: str = "", error: str = "") -> None:
        """Make a request final, if it is not, and start the next one of its conversation."""
        job = self._job(request.request_id)
        stored: Any = await self._client.hget(job, "idempotency_key")
        key = (stored or b"").decode()
        _, following = await self._finish(
            [self._line(request.caller, request.conversation_id), job, self._key(request.caller, key)],
            ["", self._prefix, request.request_id, status, result, error, int(KEEP_S)],
        )
        if following:
            await self._hand_over(following.decode())

    async def _hand_over(self, request_id: str) -> None:
        """Give a request to SAQ; one that SAQ has is not given twice."""
        await self._queue.enqueue(
            "answer",
            request_id=request_id,
            key=request_id,
            timeout=math.ceil(self._timeout_s) + 5,
            heartbeat=self._heartbeat_s,
            retries=ATTEMPTS + 1,
            retry_delay=0.1,
            ttl=-1,
        )

    async def _beat(self, job: Any) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s / 3)
            with contextlib.suppress(redis.RedisError):
                await job.update()

    async def _look_over(self) -> None:
        while True:
            await asyncio.sleep(self._look_s * random.uniform(0.8, 1.2))  # noqa: S311  (so that processes take turns)
            try:
                heads: Any = await self._client.smembers(f"{self._prefix}heads")
                for head in heads:
                    await self._hand_over(head.decode())
            except redis.RedisError:
                log.warning("the lines could not be looked over: Redis is away")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[RedisJobs]:
        """Work in the background; at the end, what is under way gets `JOBS_DRAIN_S`, then goes back to the line."""

        class Quiet(Worker[Any]):
            SIGNALS: list[Any] = []  # noqa: RUF012  (the server's handlers stay; StopSignals drains)
            timing: tuple[asyncio.Task[None], ...] = ()

            async def upkeep(self) -> list[asyncio.Task[None]]:
                self.timing = tuple(await super().upkeep())
                return list(self.timing)

        worker = Quiet(
            self._queue,
            [("answer", self._answer)],
            concurrency=self._concurrent,
            timers={"sweep": max(1, self._heartbeat_s // 5), "schedule": 1, "worker_info": 10, "abort": 1},
            shutdown_grace_period_s=math.ceil(JOBS_DRAIN_S),
            dequeue_timeout=1.0,
        )
        tasks = [asyncio.create_task(worker.start()), asyncio.create_task(self._look_over())]
        try:
            yield self
        finally:
            self._open = False
            tasks[1].cancel()
            worker.event.set()  # nothing new is begun
            if under_way := [each["task"] for each in worker.job_task_contexts.values()]:
                await asyncio.wait(under_way, timeout=JOBS_DRAIN_S)
            for timer in (*worker.timing, tasks[0]):  # it would wait for its own timers as well
                timer.cancel()
            await asyncio.wait(tasks, timeout=STOP_S)

    # ------------------------------------------------------------ what is known

    async def _view(self, request_id: str) -> QueuedRequest | None:
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._job(request_id))
            pipe.zrank(f"{self._prefix}line", request_id)
            row, rank = await pipe.execute()
        if not row:
            return None
        text = {name.decode(): value.decode() for name, value in row.items()}
        at = {name: float(text[name]) if text.get(name) else None for name in ("started_at", "finished_at")}
        status: Any = text["status"]
        return QueuedRequest(
            request_id,
            text["caller"],
            text["conversation_id"],
            text["message"],
            status,
            rank + 1 if status == "queued" and rank is not None else None,
            text.get("result") or None if status == "completed" else None,
            text.get("error") or None,
            float(text["created_at"]),
            at["started_at"],
            at["finished_at"],
        )

    def _job(self, request_id: str) -> str:
        return f"{self._prefix}job:{request_id}"

    def _line(self, caller: str, conversation_id: str) -> str:
        return f"{self._prefix}of:{caller}/{conversation_id}"

    def _key(self, caller: str, key: str) -> str:
        return f"{self._prefix}key:{caller}/{key}"

    def _seconds_for(self, requests: int) -> int:
        return max(1, math.ceil(requests * self._service_s / self._concurrent))


@contextlib.asynccontextmanager
async def open_redis(config: Production, stores: Stores) -> AsyncIterator[Stores]:
    """Replace the stores of one process by shared ones. Nothing is asked yet: a Redis that is away is a 503."""
    assert config.redis_url
    url = config.redis_url.get_secret_value()
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries=2)
    pool = redis.BlockingConnectionPool.from_url(  # a burst waits for a connection, and does not open hundreds
        url, max_connections=CONNECTIONS, timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S,
        socket_connect_timeout=TIMEOUT_S, retry=retry,
    )  # fmt: skip
    quick = redis.Redis.from_pool(pool)
    waits_s = 10  # for jobs
    patient = redis.Redis.from_url(url, socket_timeout=waits_s, socket_connect_timeout=TIMEOUT_S, retry=retry)

    def open_jobs(work: Work) -> AbstractAsyncContextManager[Jobs]:
        return RedisJobs(patient, work, timeout_s=config.deadline_s + 5).running()

    async def check() -> None:
        await quick.ping()

    try:
        yield dataclasses.replace(
            stores,
            limits=RedisLimits(quick, config.rate_limit),
            claims=RedisClaims(quick),
            counters=RedisCounters(quick),
            open_jobs=open_jobs,
            checks={**stores.checks, "redis": check},
        )
    finally:
        await quick.aclose()
        await patient.aclose()
