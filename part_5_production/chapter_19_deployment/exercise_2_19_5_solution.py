"""Exercise 2 (19.5): accept chats at once, answer them in order.

The book asks for a queue that takes requests even when the server is busy, returns a request ID immediately, works
in order of arrival, and tells at /status/{request_id} how far a request is and, in the end, its result. Notice:

* There is no lock. Nothing awaits between looking and changing, so on one event loop nothing can come in between.
* "In order" has one exception: a conversation takes one turn at a time, and the next one in line does not wait for it.
* The position is exact and costs the same for ten waiting requests as for 100,000: it is a subtraction of two
  places in line, corrected by those who left the line early.
* Everything ends: a full line refuses with an honest Retry-After, work has a deadline, results are forgotten.
* `Idempotency-Key` makes a lost answer harmless: send the same again and get the same request ID.

Run it:    python exercise_2_19_5_solution.py             (--serve keeps it up)
Check it:  make check EX=19.5.2                           (MINE=your_file.py checks yours)

Limit: one process. With `journal=FILE` accepted requests survive kill -9 (not the loss of power); a request that was
being worked on is then reported as interrupted, because nobody can know what it had done. Two processes need a broker.
"""

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import sqlite3
import time
from bisect import bisect, insort
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self

from fastapi import FastAPI, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ask
from shared.api import Caller, ChatRequest, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["IdempotencyConflict", "Journal", "QueueFull", "QueuedRequest", "RequestQueue"]

CAPACITY = 1_000  # requests waiting
KEEP_S = 900.0  # how long a result can be fetched
MAX_FINISHED = 10_000  # results kept; the oldest goes first
TIMEOUT_S = 120.0  # one request's time with the agent
DRAIN_S = 20.0  # what is left for accepted requests when the service stops
SWEEP_S = 1.0  # how often overdue work and old results are looked for
STOP_S = 5.0  # for cancelled work to end
MAX_WAIT_S = 30.0  # of GET /status/{request_id}?wait=SECONDS
FIRST_GUESS_S = 1.0  # service time before any was measured

State = Literal["queued", "processing", "completed", "failed", "cancelled"]
log = logging.getLogger(__name__)


class QueuedRequest(NamedTuple):
    """How a request stands at one moment. (A NamedTuple is as frozen as a frozen dataclass and four times as fast.)

    `position` counts from 1 and is None unless queued; `error` is a stable code; times are seconds since the epoch.
    """

    request_id: str
    caller: str
    conversation_id: str
    message: str
    status: State
    position: int | None
    result: str | None
    error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None


class QueueFull(Exception):
    """Nothing more is accepted now; `retry_after_s` is when a place should be free."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"{reason}; try again in {retry_after_s} s")


class IdempotencyConflict(Exception):
    """The key was used for another request."""

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key came with another body before: use a new key for a new request")


@dataclass(slots=True, eq=False)
class _Job:
    request_id: str
    seq: int  # number of arrival
    caller: str
    conversation_id: str
    message: str
    idempotency_key: str | None
    created_at: float
    status: State = "queued"
    result: str | None = None
    error: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    worker: asyncio.Task[None] | None = None
    done: asyncio.Future[None] | None = None  # made when somebody waits
    place: int = field(init=False)  # in the line, counted from where its numbering began


class RequestQueue:
    """Works on requests in order of arrival, `max_concurrent` at a time and one at a time per conversation.

    `work(request)` returns the result's text. If it raises, the request has failed with the exception's `code` if it
    has one, else with "internal_error"; "timeout" and "interrupted" are the queue's own codes. Use it as
    `async with RequestQueue(work=...) as queue:`; leaving the block finishes what was accepted, for `drain_s` seconds
    at most, and what is left is reported as interrupted or, with a journal, stays in line for the next start.
    Memory: about 0.4 kB for a request, waiting or finished, and its texts.
    """

    def __init__(
        self,
        max_concurrent: int = 5,
        *,
        work: Callable[[QueuedRequest], Awaitable[str]],
        capacity: int = CAPACITY,
        keep_s: float = KEEP_S,
        max_finished: int = MAX_FINISHED,
        timeout_s: float = TIMEOUT_S,
        drain_s: float = DRAIN_S,
        sweep_s: float = SWEEP_S,
        journal: "Journal | None" = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        if min(max_concurrent, capacity, max_finished) < 1 or min(keep_s, timeout_s) <= 0:
            raise ValueError("max_concurrent, capacity, max_finished, keep_s and timeout_s must be positive")
        self.max_concurrent, self.capacity = max_concurrent, capacity
        self.requests: dict[str, _Job] = {}
        self.queue: asyncio.PriorityQueue[int] = asyncio.PriorityQueue()  # arrival numbers that may start
        self.service_s: float | None = None  # moving average of what one request took
        self._work, self._clock, self._new_id = work, clock, new_id or _random_ids().__next__
        self._keep_s, self._max_finished, self._timeout_s, self._drain_s = keep_s, max_finished, timeout_s, drain_s
        self._sweep_s, self._journal = sweep_s, journal
        self._waiting: dict[int, _Job] = {}
        self._running: dict[_Job, float] = {}  # since when
        self._finished: deque[_Job] = deque()  # the one that finished first comes first
        self._turn: dict[tuple[str, str], int] = {}  # per conversation: who may start or is running
        self._later: dict[tuple[str, str], deque[int]] = {}  # and who comes after that, where anybody does
        self._by_key: dict[tuple[str, str], _Job] = {}
        self._front = self._end = 0  # the first place in line that is taken, and the one for who comes next
        self._left_early: list[int] = []  # the places behind it that are empty, sorted
        self._seq = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = self._stopped = False

    # ------------------------------------------------------------ for callers

    async def enqueue(
        self,
        message: str,
        *,
        caller: str = "",
        conversation_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> QueuedRequest:
        """Accept a request; without a `conversation_id` it opens one, named like the request.

        Raises QueueFull, and IdempotencyConflict when the caller used the key for another request. The same request
        under the same key is returned as it stands, for as long as it is remembered.
        """
        self._forget_old()
        if idempotency_key is not None and (job := self._by_key.get((caller, idempotency_key))):
            if (job.message, job.conversation_id) != (message, conversation_id or job.request_id):
                raise IdempotencyConflict
            return self._view(job)
        if not self._open:
            raise QueueFull("the service is stopping", math.ceil(self._drain_s))
        if len(self._waiting) >= self.capacity:
            raise QueueFull(f"{self.capacity} requests are waiting", self._seconds_for(1))
        request_id = self._new_id()
        job = _Job(
            request_id, next(self._seq), caller, conversation_id or request_id, message, idempotency_key, self._clock()
        )
        if self._journal:
            self._journal.save(job)  # first: what is not on disk was not accepted
        self._admit(job)
        return self._view(job)

    async def get_status(self, request_id: str, *, caller: str = "") -> QueuedRequest | None:
        """Say how a request stands; None if it is unknown, forgotten or somebody else's."""
        job = self._find(request_id, caller)
        return self._view(job) if job else None

    async def wait(self, request_id: str, timeout_s: float, *, caller: str = "") -> QueuedRequest | None:
        """Like `get_status`, but answers when the request is final, or after `timeout_s` seconds."""
        job = self._find(request_id, caller)
        if job and job.finished_at is None:
            await asyncio.wait((_done(job),), timeout=timeout_s)
        return self._view(job) if job else None

    async def cancel(self, request_id: str, *, caller: str = "") -> QueuedRequest | None:
        """Cancel a request that is not final yet, and say how it stands; a running one ends at its next await."""
        job = self._find(request_id, caller)
        if job:
            self._stop(job, "cancelled")
        return self._view(job) if job else None

    def retry_after_s(self, request: QueuedRequest) -> int:
        """Estimate in how many whole seconds it pays to ask again; 0 when the request is final."""
        return (
            0 if request.finished_at is not None else self._seconds_for((request.position or 0) + self.max_concurrent)
        )

    # ------------------------------------------------------------ the line

    def _admit(self, job: _Job) -> None:
        self._remember(job)
        self._waiting[job.seq] = job
        job.place, self._end = self._end, self._end + 1
        conversation = job.caller, job.conversation_id
        if self._turn.setdefault(conversation, job.seq) == job.seq:
            self.queue.put_nowait(job.seq)
        else:  # its turn comes when the one before it has ended
            self._later.setdefault(conversation, deque()).append(job.seq)

    def _leave_line(self, job: _Job) -> None:
        del self._waiting[job.seq]
        if job.place != self._front:
            insort(self._left_early, job.place)
            if len(self._left_early) > self.capacity:  # the first one waits for long: number the others anew
                self._left_early.clear()
                self._front, self._end = 0, len(self._waiting)
                for place, other in enumerate(self._waiting.values()):
                    other.place = place
            return
        self._front += 1
        if left := self._left_early:
            gone = 0
            while gone < len(left) and left[gone] == self._front:
                gone += 1
                self._front += 1
            del left[:gone]

    def _leave_conversation(self, job: _Job) -> None:
        conversation = job.caller, job.conversation_id
        later = self._later.get(conversation)
        if later is None:
            del self._turn[conversation]
            return
        if self._turn[conversation] == job.seq:
            self._turn[conversation] = later.popleft()
            self.queue.put_nowait(self._turn[conversation])
        else:
            later.remove(job.seq)
        if not later:
            del self._later[conversation]

    def _position(self, job: _Job) -> int:
        return job.place - self._front - bisect(self._left_early, job.place) + 1

    # ------------------------------------------------------------ the work

    async def _worker(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        while not self._stopped:
            job = self._waiting.get(await self.queue.get())
            if job is None or self._stopped:
                continue  # cancelled while it was in line, or left to the next start
            self._leave_line(job)
            job.status, job.started_at, job.worker = "processing", self._clock(), me
            self._running[job] = job.started_at
            try:
                if self._journal:
                    self._journal.save(job)
                self._finish(job, "completed", await self._work(self._view(job)))
            except asyncio.CancelledError:
                if job.finished_at is None:
                    raise  # the worker was cancelled, not the request
            except Exception as error:
                code = str(getattr(error, "code", None) or "internal_error")
                log.exception("request %s failed: %s", job.request_id, code)
                self._finish(job, "failed", error=code)
            finally:
                if job.finished_at is None:
                    self._finish(job, "failed", error="interrupted")
                del self._running[job]
                self._leave_conversation(job)
                while me.cancelling() and not self._stopped:
                    me.uncancel()  # the cancellation was the request's; it is over

    def _finish(self, job: _Job, status: State, result: str | None = None, error: str | None = None) -> None:
        """Make a request final; a final one never changes."""
        if job.finished_at is not None:
            return
        now = self._clock()
        if job.started_at is not None and job.worker and status != "cancelled":
            took = max(0.0, now - job.started_at)
            before = took if self.service_s is None else self.service_s
            self.service_s = before + 0.2 * (took - before)
        job.status, job.result, job.error, job.finished_at, job.worker = status, result, error, now, None
        if job.done is not None:
            job.done.set_result(None)
        self._finished.append(job)
        if self._journal:
            self._journal.save(job)

    def _stop(self, job: _Job, status: State, error: str | None = None) -> None:
        if job.finished_at is not None:
            return
        if job.worker:
            job.worker.cancel()
        else:
            self._leave_line(job)
            self._leave_conversation(job)
        self._finish(job, status, error=error)

    async def _sweep(self) -> None:
        """Stop overdue work and forget old results; one task for all is cheaper than a timer for each."""
        while True:
            await asyncio.sleep(self._sweep_s)
            self._forget_old()
            started_before = self._clock() - self._timeout_s
            for job in [job for job, started_at in self._running.items() if started_at <= started_before]:
                self._stop(job, "failed", "timeout")

    # ------------------------------------------------------------ what is remembered

    def _remember(self, job: _Job) -> None:
        self.requests[job.request_id] = job
        if job.idempotency_key is not None:
            self._by_key[job.caller, job.idempotency_key] = job

    def _forget_old(self) -> None:
        finished = self._finished
        while finished and (len(finished) > self._max_finished or self._is_old(finished[0])):
            job = finished.popleft()
            del self.requests[job.request_id]
            if job.idempotency_key is not None:
                del self._by_key[job.caller, job.idempotency_key]
            if self._journal:
                self._journal.forget(job.request_id)

    def _is_old(self, job: _Job) -> bool:
        return job.finished_at is not None and job.finished_at <= self._clock() - self._keep_s

    def _find(self, request_id: str, caller: str) -> _Job | None:
        self._forget_old()
        job = self.requests.get(request_id)
        return job if job and job.caller == caller else None

    def _view(self, job: _Job) -> QueuedRequest:
        position = self._position(job) if job.status == "queued" else None
        return tuple.__new__(  # twice in the life of every request: without the detour over its own __new__
            QueuedRequest,
            (
                job.request_id,
                job.caller,
                job.conversation_id,
                job.message,
                job.status,
                position,
                job.result,
                job.error,
                job.created_at,
                job.started_at,
                job.finished_at,
            ),
        )

    def _seconds_for(self, requests: int) -> int:
        service_s = FIRST_GUESS_S if self.service_s is None else self.service_s
        return max(1, math.ceil(requests * service_s / self.max_concurrent))

    # ------------------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        if self._journal:
            self._recover(self._journal)
        self._open, self._stopped = True, False
        for _ in range(self.max_concurrent):
            self._keep_up(self._worker)
        self._keep_up(self._sweep)
        return self

    def _recover(self, journal: "Journal") -> None:
        jobs = journal.open()
        for left in (self.requests, self._waiting, self._finished, self._turn, self._later, self._by_key):
            left.clear()  # by an earlier life: all of it is in the file
        self._left_early.clear()
        self._front = self._end
        for job in jobs:
            if job.status == "queued":
                job.seq = next(self._seq)
                journal.save(job)
                self._admit(job)
            else:
                self._remember(job)
                if job.status == "processing":
                    self._finish(job, "failed", error="interrupted")
                else:
                    self._finished.append(job)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._stopped = self._journal is not None  # who waits is in the file, and the next start works on it
        line = {} if self._stopped else self._waiting
        accepted = [_done(job) for job in (*self._running, *line.values()) if job.finished_at is None]
        try:
            if accepted:
                await asyncio.wait(accepted, timeout=self._drain_s)
        finally:
            for job in list(line.values()):
                self._stop(job, "failed", "interrupted")
            self._stopped = True
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_S)
            if self._journal:
                self._journal.close()

    def _keep_up(self, run: Callable[[], Coroutine[None, None, None]]) -> None:
        """Run a loop of the queue's own, and another one if it should ever end."""
        task = asyncio.create_task(run())
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if not self._stopped:
                log.error("%s ended and is started again", run.__name__, exc_info=error)
                self._keep_up(run)

        task.add_done_callback(ended)


def _random_ids() -> Iterator[str]:
    """Yield 128 bits in hex; drawing them 64 at a time costs a fifth of asking the system for each."""
    while True:
        drawn = secrets.token_hex(64 * 16)
        for at in range(0, len(drawn), 32):
            yield drawn[at : at + 32]


def _done(job: _Job) -> asyncio.Future[None]:
    if job.done is None:
        job.done = asyncio.get_running_loop().create_future()
    return job.done


class Journal:
    """Keeps what a RequestQueue accepted in an SQLite file, so that a killed process loses none of it.

    A line is written when a request comes, starts and ends: 20-50 us each, on the event loop. The file is locked: a
    second queue on it is refused (sqlite3.OperationalError), since it would do everything twice. It holds messages
    and answers in the clear, readable by its owner only.
    """

    def __init__(self, path: Path, *, patience_s: float = 1.0) -> None:
        self._path, self._patience_s = path, patience_s

    def open(self) -> list[_Job]:
        """Open or create the file and return its requests: those in line in their order, the others as they ended."""
        self._path.touch(mode=0o600)
        # isolation_level None: every statement commits
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=self._patience_s)
        try:
            self._db.executescript("""
                PRAGMA locking_mode = EXCLUSIVE;
                PRAGMA journal_mode = WAL;
                PRAGMA synchronous = NORMAL;
                CREATE TABLE IF NOT EXISTS requests (
                    request_id PRIMARY KEY, seq, caller, conversation_id, message, idempotency_key, created_at,
                    status, result, error, started_at, finished_at
                );
            """)
            rows = self._db.execute("SELECT * FROM requests ORDER BY finished_at IS NULL, finished_at, seq")
            return [_Job(*row) for row in rows]
        except sqlite3.Error:
            self.close()
            raise

    def save(self, job: _Job) -> None:
        """Write down how a request stands."""
        row = [getattr(job, name) for name in _Job.__slots__[:12]]  # without what belongs to this process
        self._db.execute("INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def forget(self, request_id: str) -> None:
        """Delete a request."""
        self._db.execute("DELETE FROM requests WHERE request_id = ?", (request_id,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class ChatStatus(BaseModel):
    """What `/v1/chat` and `/status/{request_id}` answer; fields that say nothing yet are left out."""

    request_id: str
    conversation_id: str
    status: State
    position: int | None = None
    response: str | None = None
    error: str | None = None


def chat_status(
    request: QueuedRequest | None, retry_after_s: Callable[[QueuedRequest], int], to: Response
) -> ChatStatus:
    """Answer how a request stands: 404 without one, and a Retry-After header while it is not final."""
    if request is None:
        raise HTTPException(404, "no such request")
    if seconds := retry_after_s(request):
        to.headers["Retry-After"] = str(seconds)
    return ChatStatus(
        request_id=request.request_id,
        conversation_id=request.conversation_id,
        status=request.status,
        position=request.position,
        response=request.result,
        error=request.error,
    )


def create_app(
    settings: Settings | None = None,
    *,
    client: "AsyncOpenAI | None" = None,
    max_concurrent: int = 5,
    capacity: int = CAPACITY,
    journal: Path | None = None,
) -> FastAPI:
    """Wire the queue between the endpoints and the agent; it starts and stops with the app."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def answer(request: QueuedRequest) -> str:
            return (await ask(app.state.agent, request.message, f"{request.caller}/{request.conversation_id}")).text

        file = Journal(journal) if journal else None
        async with RequestQueue(max_concurrent, work=answer, capacity=capacity, journal=file) as app.state.queue:
            yield

    app = base_app(settings, client, lifespan=lifespan)

    @app.post("/v1/chat", status_code=202, response_model_exclude_none=True)
    async def chat(
        body: ChatRequest,
        caller: Caller,
        response: Response,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    ) -> ChatStatus:
        queue: RequestQueue = app.state.queue
        try:
            queued = await queue.enqueue(
                body.message, caller=caller, conversation_id=body.conversation_id, idempotency_key=idempotency_key
            )
        except QueueFull as full:
            raise HTTPException(503, str(full), {"Retry-After": str(full.retry_after_s)}) from None
        except IdempotencyConflict as conflict:
            raise HTTPException(422, str(conflict)) from None
        response.headers["Location"] = f"/status/{queued.request_id}"
        return chat_status(queued, queue.retry_after_s, response)

    @app.get("/v1/status/{request_id}", response_model_exclude_none=True)
    @app.get("/status/{request_id}", response_model_exclude_none=True)
    async def status(
        request: Request,
        request_id: str,
        caller: Caller,
        response: Response,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="seconds to wait for the result")] = 0,
    ) -> ChatStatus:
        queue: RequestQueue = app.state.queue
        found = await unless_gone(request, queue.wait(request_id, wait, caller=caller))
        return chat_status(found, queue.retry_after_s, response)

    @app.delete("/v1/status/{request_id}", response_model_exclude_none=True)
    @app.delete("/status/{request_id}", response_model_exclude_none=True)
    async def cancel(request_id: str, caller: Caller, response: Response) -> ChatStatus:
        queue: RequestQueue = app.state.queue
        return chat_status(await queue.cancel(request_id, caller=caller), queue.retry_after_s, response)

    return app


def main(argv: list[str] | None = None) -> int:
    """Send a request, ask for it, and show what the queue refuses."""
    hello = {"message": "What is 6 * 7?"}
    once = {"Idempotency-Key": "order-1"}
    steps = [
        demo.Send("POST", "/v1/chat", hello, headers=once, note="accepted at once", show=("Location", "Retry-After")),
        demo.Send("POST", "/v1/chat", hello, headers=once, note="sent again: the same request ID"),
        demo.Send("GET", "/status/{request_id}?wait=10", note="its result, the moment it is there"),
        demo.Send("DELETE", "/status/{request_id}", note="too late to cancel: a final state never changes"),
        demo.Send("GET", "/status/{request_id}", key=1, note="somebody else asks for it"),
        demo.Send("POST", "/v1/chat", {"message": "No."}, headers=once, note="the same key for another request"),
    ]
    return demo.run(__doc__, create_app, steps, argv)


if __name__ == "__main__":
    raise SystemExit(main())
