"""19.5.2: the queue's core against a brute-force model, its life and its file, the app over HTTP, the script."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from exercise_2_19_5_solution import (
    CAPACITY,
    DRAIN_S,
    FIRST_GUESS_S,
    KEEP_S,
    MAX_FINISHED,
    MAX_WAIT_S,
    STOP_S,
    SWEEP_S,
    TIMEOUT_S,
    IdempotencyConflict,
    Journal,
    QueuedRequest,
    QueueFull,
    RequestQueue,
    create_app,
    main,
)
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config import ROOT, Settings
from shared.offline import Fault, OfflineModel
from tests.kit.fakes import FakeClock

pytestmark = pytest.mark.anyio
EXAMINED = Path(inspect.getfile(RequestQueue)).parent  # also in processes of their own: a mutant is elsewhere
SETTINGS = Settings(openai_api_key="offline", offline=True, api_keys=("key-a", "key-b"))
KEY_A, KEY_B = {"X-API-Key": "key-a"}, {"X-API-Key": "key-b"}


class Desk:
    """Work that ends when the test says so, and remembers who was on it."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.on_it: dict[str, asyncio.Future[str]] = {}
        self.conversations: list[tuple[str, str]] = []
        self.peak = 0

    async def __call__(self, request: QueuedRequest) -> str:
        conversation = request.caller, request.conversation_id
        assert conversation not in self.conversations, "two turns of one conversation at the same time"
        self.started.append(request.message)
        self.conversations.append(conversation)
        self.on_it[request.message] = asyncio.get_running_loop().create_future()
        self.peak = max(self.peak, len(self.on_it))
        try:
            return await self.on_it[request.message]
        finally:
            del self.on_it[request.message]
            self.conversations.remove(conversation)

    async def end(self, *messages: str) -> None:
        for message in messages:
            self.on_it[message].set_result(f"answer to {message}")
        await settle()


async def settle() -> None:
    """Let everything that can happen without time passing happen."""
    for _ in range(10):
        await asyncio.sleep(0)


async def echo(request: QueuedRequest) -> str:
    return request.message


def test_the_defaults_are_the_stated_ones() -> None:
    stated = (CAPACITY, KEEP_S, MAX_FINISHED, TIMEOUT_S, DRAIN_S, SWEEP_S, STOP_S, MAX_WAIT_S, FIRST_GUESS_S)
    assert stated == (1_000, 900.0, 10_000, 120.0, 20.0, 1.0, 5.0, 30.0, 1.0)
    queue = RequestQueue(work=echo)
    assert (queue.max_concurrent, queue.capacity, queue.service_s) == (5, 1_000, None)


# ---------------------------------------------------------------- order


async def test_requests_start_in_order_of_arrival_and_never_more_than_max_concurrent() -> None:
    desk = Desk()
    async with RequestQueue(3, work=desk) as queue:
        for number in range(10):
            await queue.enqueue(str(number))
        await settle()
        while desk.on_it:
            await desk.end(min(desk.on_it, key=int))
    assert desk.started == [str(number) for number in range(10)]
    assert desk.peak == 3


async def test_the_default_is_five_at_a_time() -> None:
    desk = Desk()
    async with RequestQueue(work=desk) as queue:
        for number in range(9):
            await queue.enqueue(str(number))
        await settle()
        assert len(desk.on_it) == 5
        while desk.on_it:
            await desk.end(*desk.on_it)


async def test_a_conversation_takes_one_turn_at_a_time_and_blocks_nobody_else() -> None:
    desk = Desk()
    async with RequestQueue(2, work=desk) as queue:
        for message, conversation in (("a1", "a"), ("a2", "a"), ("a3", "a"), ("b1", "b"), ("c1", "c")):
            await queue.enqueue(message, conversation_id=conversation)
        await settle()
        assert desk.started == ["a1", "b1"]
        await desk.end("a1")
        assert desk.started == ["a1", "b1", "a2"]  # it arrived before c1
        await desk.end("a2", "b1")
        assert desk.started[3:] == ["a3", "c1"]
        await desk.end("a3", "c1")


async def test_the_same_conversation_name_of_two_callers_is_two_conversations() -> None:
    desk = Desk()
    async with RequestQueue(2, work=desk) as queue:
        await queue.enqueue("1", caller="a", conversation_id="c")
        await queue.enqueue("2", caller="b", conversation_id="c")
        await settle()
        assert desk.started == ["1", "2"]
        await desk.end("1", "2")


OPERATIONS = st.lists(st.tuples(st.sampled_from(["come", "come", "come", "end", "cancel"]), st.integers(0, 99)))


@settings(max_examples=150, deadline=None)
@given(OPERATIONS, st.integers(1, 4))
def test_property_positions_and_starts_agree_with_a_model_that_counts(
    operations: list[tuple[str, int]], max_concurrent: int
) -> None:
    async def scenario() -> None:
        desk = Desk()
        waiting: list[tuple[str, str, str]] = []  # the model: message, conversation, request ID, in order of arrival
        running: dict[str, str] = {}
        started: list[str] = []

        def start() -> None:
            for entry in list(waiting):
                message, conversation, _ = entry
                if len(running) < max_concurrent and conversation not in running.values():
                    waiting.remove(entry)
                    running[message] = conversation
                    started.append(message)

        async with RequestQueue(max_concurrent, work=desk) as queue:
            for number, (what, pick) in enumerate(operations):
                if what == "come":
                    conversation = f"c{pick % 5}"
                    queued = await queue.enqueue(str(number), conversation_id=conversation)
                    waiting.append((str(number), conversation, queued.request_id))
                elif what == "end" and running:
                    message = sorted(running)[pick % len(running)]
                    del running[message]
                    desk.on_it[message].set_result("")
                elif what == "cancel" and waiting:
                    await queue.cancel(waiting.pop(pick % len(waiting))[2])
                start()
                await settle()
                assert desk.started == started
                for place, (_, _, request_id) in enumerate(waiting, 1):
                    status = await queue.get_status(request_id)
                    assert status is not None and (status.status, status.position) == ("queued", place)
            for _, _, request_id in waiting:
                await queue.cancel(request_id)
            await desk.end(*desk.on_it)
            assert not queue._turn and not queue._later and not queue._waiting and not queue._running

    asyncio.run(scenario())


# ---------------------------------------------------------------- what a request goes through


async def test_a_request_goes_from_queued_to_processing_to_completed() -> None:
    desk, clock = Desk(), FakeClock()
    async with RequestQueue(1, work=desk, clock=clock, new_id=iter("ab").__next__) as queue:
        queued = await queue.enqueue("one", caller="me", conversation_id="c")
        assert queued == QueuedRequest("a", "me", "c", "one", "queued", 1, None, None, 1_000.0, None, None)
        clock.now += 1
        await settle()
        status = await queue.get_status("a", caller="me")
        assert status == queued._replace(status="processing", position=None, started_at=1_001.0)
        clock.now += 2
        await desk.end("one")
        final = await queue.get_status("a", caller="me")
        assert final == status._replace(status="completed", result="answer to one", finished_at=1_003.0)


async def test_without_a_conversation_a_request_opens_one_named_like_itself() -> None:
    async with RequestQueue(work=echo) as queue:
        queued = await queue.enqueue("x")
        assert queued.conversation_id == queued.request_id
        assert len(queued.request_id) == 32


async def test_abuse_what_is_foreign_or_unknown_does_not_exist() -> None:
    async with RequestQueue(work=echo) as queue:
        queued = await queue.enqueue("x", caller="a")
        for request_id, caller in ((queued.request_id, "b"), ("nobody's", "a")):
            assert await queue.get_status(request_id, caller=caller) is None
            assert await queue.wait(request_id, 9, caller=caller) is None
            assert await queue.cancel(request_id, caller=caller) is None
        status = await queue.wait(queued.request_id, 9, caller="a")
        assert status is not None and status.status == "completed"


def test_request_ids_are_128_random_bits_and_none_comes_twice() -> None:
    queues = [RequestQueue(work=echo) for _ in range(2)]
    ids = [queue._new_id() for queue in queues for _ in range(200)]
    assert len(set(ids)) == 400
    assert all(len(bytes.fromhex(one)) == 16 for one in ids)


class Refused(Exception):
    def __init__(self, code: Any) -> None:
        self.code = code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("model_busy"), "model_busy"),
        (Refused(404), "404"),
        (Refused(None), "internal_error"),
        (KeyError("x"), "internal_error"),
    ],
)
async def test_failure_a_request_that_fails_is_reported_with_a_stable_code(
    error: Exception, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: QueuedRequest) -> str:
        raise error

    async with RequestQueue(1, work=fail) as queue:
        for _ in range(3):  # and the worker goes on
            queued = await queue.enqueue("x")
            status = await queue.wait(queued.request_id, 9)
            assert status is not None and (status.status, status.error, status.result) == ("failed", code, None)
            assert f"request {queued.request_id} failed: {code}" in caplog.text


class Crash(BaseException):
    pass


async def test_failure_a_crashed_worker_is_replaced_and_its_request_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def work(request: QueuedRequest) -> str:
        if request.message == "crash":
            raise Crash
        return request.message

    async with RequestQueue(1, work=work) as queue:
        queued = [await queue.enqueue(message) for message in ("crash", "next")]
        ends = [await queue.wait(request.request_id, 9) for request in queued]
    assert [(end.status, end.error, end.result) for end in ends if end] == [
        ("failed", "interrupted", None),
        ("completed", None, "next"),
    ]
    assert "is started again" in caplog.text


async def test_failure_a_worker_cancelled_from_outside_is_replaced_busy_or_idle() -> None:
    desk = Desk()
    async with RequestQueue(1, work=desk) as queue:
        queued = await queue.enqueue("busy")
        for _ in range(2):
            await settle()
            before = set(queue._tasks)
            for task in before:
                task.cancel()
            await settle()
            assert all(task.done() for task in before), "who is cancelled from outside ends"
            assert len(queue._tasks) == len(before)
        status = await queue.wait(queued.request_id, 9)
        assert status is not None and (status.status, status.error) == ("failed", "interrupted")
        again = await queue.enqueue("again")
        await settle()
        await desk.end("again")
        status = await queue.get_status(again.request_id)
        assert status is not None and status.status == "completed"


async def test_work_that_is_overdue_is_stopped_and_not_a_moment_earlier() -> None:
    desk, clock = Desk(), FakeClock()
    async with RequestQueue(1, work=desk, clock=clock, timeout_s=60, sweep_s=0) as queue:
        slow = await queue.enqueue("slow")
        await queue.enqueue("next")
        await settle()
        clock.now += 59.9
        await settle()
        assert list(desk.on_it) == ["slow"]
        clock.now += 0.1
        await settle()
        status = await queue.get_status(slow.request_id)
        assert status is not None and (status.status, status.error) == ("failed", "timeout")
        assert list(desk.on_it) == ["next"]
        await desk.end("next")


# ---------------------------------------------------------------- waiting and cancelling


async def test_waiting_ends_the_moment_the_request_is_final_for_everybody_who_waits() -> None:
    desk = Desk()
    async with RequestQueue(work=desk) as queue:
        queued = await queue.enqueue("x")
        waits = [asyncio.create_task(queue.wait(queued.request_id, 60)) for _ in range(3)]
        await settle()
        waits[0].cancel()  # a client that hangs up does not take the others along
        await settle()
        assert not any(wait.done() for wait in waits[1:])
        await desk.end("x")
        assert [status.result for wait in waits[1:] if (status := await wait)] == ["answer to x"] * 2


async def test_waiting_ends_when_its_time_is_over() -> None:
    desk = Desk()
    async with RequestQueue(work=desk) as queue:
        queued = await queue.enqueue("x")
        status = await queue.wait(queued.request_id, 0)
        assert status is not None and status.status == "processing"
        await desk.end("x")


async def test_a_cancelled_request_in_line_never_starts_and_frees_its_place() -> None:
    desk = Desk()
    async with RequestQueue(1, work=desk, capacity=2) as queue:
        await queue.enqueue("running")
        await settle()
        first, second = await queue.enqueue("first"), await queue.enqueue("second")
        for _ in range(2):
            status = await queue.cancel(first.request_id)
            assert status is not None and (status.status, status.position) == ("cancelled", None)
        status = await queue.get_status(second.request_id)
        assert status is not None and status.position == 1
        await queue.enqueue("third")
        await desk.end("running")
        await desk.end("second")
        await desk.end("third")
    assert desk.started == ["running", "second", "third"]


async def test_a_cancelled_request_at_work_is_stopped_and_the_worker_goes_on() -> None:
    desk = Desk()
    async with RequestQueue(1, work=desk) as queue:
        running, following = await queue.enqueue("running"), await queue.enqueue("following")
        await settle()
        worker = next(iter(queue._running)).worker
        status = await queue.cancel(running.request_id)
        assert status is not None and status.status == "cancelled"
        await settle()
        assert list(desk.on_it) == ["following"]
        assert next(iter(queue._running)).worker is worker and worker is not None and worker.cancelling() == 0
        await desk.end("following")
        status = await queue.get_status(following.request_id)
        assert status is not None and status.status == "completed"


async def test_edge_work_that_ignores_its_cancellation_keeps_its_place_until_it_ends() -> None:
    started, ignored = [], asyncio.Event()

    async def stubborn(request: QueuedRequest) -> str:
        started.append(request.message)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await ignored.wait()
        return "too late"

    async with RequestQueue(1, work=stubborn) as queue:
        first = await queue.enqueue("first")
        await queue.enqueue("second")
        await settle()
        await queue.cancel(first.request_id)
        await settle()
        assert started == ["first"]
        ignored.set()
        await settle()
        assert started == ["first", "second"]
        status = await queue.get_status(first.request_id)
        assert status is not None and (status.status, status.result) == ("cancelled", None)
        for job in list(queue.requests):
            await queue.cancel(job)


async def test_a_final_state_never_changes() -> None:
    async with RequestQueue(work=echo) as queue:
        queued = await queue.enqueue("x")
        final = await queue.wait(queued.request_id, 9)
        assert final is not None and final.status == "completed"
        assert await queue.cancel(queued.request_id) == final
        assert await queue.get_status(queued.request_id) == final


# ---------------------------------------------------------------- bounds


async def test_a_full_line_refuses_and_says_when_a_place_is_free() -> None:
    desk, clock = Desk(), FakeClock()
    async with RequestQueue(2, work=desk, capacity=2, clock=clock) as queue:
        for message in "ab":
            await queue.enqueue(message)
        await settle()
        for message in "cd":
            await queue.enqueue(message)
        with pytest.raises(QueueFull, match="2 requests are waiting; try again in 1 s") as refused:
            await queue.enqueue("e")  # nothing measured yet
        assert refused.value.retry_after_s == 1
        clock.now += 7
        await desk.end("a", "b")
        assert queue.service_s == 7
        for message in "ef":
            await queue.enqueue(message)
        with pytest.raises(QueueFull) as refused:
            await queue.enqueue("g")
        assert refused.value.retry_after_s == 4  # two of them take 7 s each: a place every 3.5 s
        clock.now += 17
        await desk.end("c", "d")
        assert queue.service_s == pytest.approx(0.64 * 7 + 0.36 * 17)
        await desk.end("e", "f")


async def test_edge_neither_a_cancelled_request_nor_a_clock_set_back_spoils_the_estimate() -> None:
    desk, clock = Desk(), FakeClock()
    async with RequestQueue(1, work=desk, clock=clock) as queue:
        slow = await queue.enqueue("slow")
        await settle()
        clock.now += 1_000
        await queue.cancel(slow.request_id)
        assert queue.service_s is None
        await queue.enqueue("back")
        await settle()
        clock.now -= 500
        await desk.end("back")
        assert queue.service_s == 0.0


async def test_retry_after_grows_with_the_position_and_is_zero_at_the_end() -> None:
    desk, clock = Desk(), FakeClock()
    async with RequestQueue(2, work=desk, clock=clock) as queue:
        first = await queue.enqueue("a")
        await settle()
        clock.now += 10
        await desk.end("a")
        done = await queue.get_status(first.request_id)
        assert done is not None and queue.retry_after_s(done) == 0
        requests = [await queue.enqueue(message) for message in "bcde"]
        await settle()
        stands = [status for request in requests if (status := await queue.get_status(request.request_id))]
        assert [status.position for status in stands] == [None, None, 1, 2]
        assert [queue.retry_after_s(status) for status in stands] == [10, 10, 15, 20]
        await desk.end("b", "c")
        await desk.end("d", "e")


async def test_edge_results_are_forgotten_when_their_time_is_over_and_not_a_moment_earlier() -> None:
    clock = FakeClock()
    async with RequestQueue(work=echo, clock=clock, keep_s=900, sweep_s=9e9) as queue:
        queued = await queue.enqueue("x", idempotency_key="k")
        await queue.wait(queued.request_id, 9)
        clock.now += 899.9
        assert await queue.get_status(queued.request_id)
        clock.now += 0.1
        assert await queue.get_status(queued.request_id) is None
        assert not queue.requests and not queue._by_key


async def test_results_are_forgotten_without_anybody_asking() -> None:
    clock = FakeClock()
    async with RequestQueue(work=echo, clock=clock, keep_s=900, sweep_s=0) as queue:
        await queue.enqueue("x", idempotency_key="k")
        await settle()
        clock.now += 900
        await settle()
        assert not queue.requests and not queue._by_key and not queue._finished


async def test_abuse_many_requests_leave_a_bounded_memory() -> None:
    async with RequestQueue(work=echo, max_finished=10, capacity=50) as queue:
        for number in range(500):
            queued = await queue.enqueue(str(number), idempotency_key=str(number))
            if number % 3 == 0:
                await queue.cancel(queued.request_id)
            await settle()
            assert len(queue.requests) <= 10 + 1, "the next one to be accepted pushes the oldest out"
        assert await queue.get_status("anybody's") is None
        assert len(queue.requests) == len(queue._by_key) == len(queue._finished) == 10
        assert not queue._waiting and not queue._running and not queue._left_early
        assert not queue._turn and not queue._later
        assert queue.queue.empty()


async def test_abuse_one_who_waits_for_ever_in_front_does_not_make_the_queue_remember_all_the_others() -> None:
    desk = Desk()
    empty_places: list[int] = []

    async def work(request: QueuedRequest) -> str:
        return await desk(request) if request.conversation_id == "slow" else "done"

    async with RequestQueue(2, work=work, capacity=4) as queue:
        for message in ("running", "in front", "behind it"):
            await queue.enqueue(message, conversation_id="slow")
        for number in range(50):
            await queue.enqueue(str(number))
            await settle()
            empty_places.append(len(queue._left_early))
            stands = [await queue.get_status(job.request_id) for job in list(queue._waiting.values())]
            assert [(each.message, each.position) for each in stands if each] == [("in front", 1), ("behind it", 2)]
        assert max(empty_places) == 4
        last = await queue.enqueue("last")
        assert last.position == 3
        for message in ("running", "in front", "behind it"):
            await desk.end(message)
        assert not queue._left_early and queue._front == queue._end


async def test_failure_what_could_not_be_written_down_was_not_accepted_and_takes_no_place(tmp_path: Path) -> None:
    class Full(Journal):
        full = False

        def save(self, job: Any) -> None:
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            super().save(job)

    desk, journal = Desk(), Full(tmp_path / "queue.db")
    async with RequestQueue(1, work=desk, journal=journal) as queue:
        await queue.enqueue("running")
        await settle()
        journal.full = True
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError):
                await queue.enqueue("lost", idempotency_key="k")
        journal.full = False
        assert [(await queue.enqueue(message, idempotency_key="k" + message)).position for message in "ab"] == [1, 2]
        assert len(queue.requests) == 3 and not queue._left_early
        await desk.end("running")
        await desk.end("a")
        await desk.end("b")
        assert not queue._left_early and desk.started == ["running", "a", "b"]


@pytest.mark.parametrize("wrong", ["max_concurrent", "capacity", "keep_s", "max_finished", "timeout_s"])
def test_edge_nothing_works_with_a_bound_of_zero(wrong: str) -> None:
    arguments: dict[str, Any] = {"work": echo, wrong: 0}
    with pytest.raises(ValueError, match="must be positive"):
        RequestQueue(**arguments)


def test_edge_less_than_a_second_is_a_bound_as_well() -> None:
    assert RequestQueue(work=echo, keep_s=0.5, timeout_s=0.5)


async def test_before_it_is_started_and_after_its_end_nothing_is_accepted() -> None:
    queue = RequestQueue(work=echo)
    for _ in range(2):
        with pytest.raises(QueueFull, match="stopping"):
            await queue.enqueue("x")
        async with queue:
            await queue.enqueue("x")


# ---------------------------------------------------------------- the same request again


async def test_the_same_key_and_request_is_one_request_also_twenty_at_once() -> None:
    desk = Desk()
    async with RequestQueue(work=desk, capacity=1) as queue:
        many = await asyncio.gather(*(queue.enqueue("x", idempotency_key="k") for _ in range(20)))
        assert len({queued.request_id for queued in many}) == 1
        await settle()
        await desk.end("x")
        again = await queue.enqueue("x", idempotency_key="k")
        assert (again.request_id, again.status) == (many[0].request_id, "completed")
    assert desk.started == ["x"]


async def test_abuse_the_same_key_for_another_request_is_a_conflict() -> None:
    async with RequestQueue(work=echo) as queue:
        await queue.enqueue("x", conversation_id="c", idempotency_key="k")
        for message, conversation in (("y", "c"), ("x", "d"), ("x", None)):
            with pytest.raises(IdempotencyConflict, match="use a new key"):
                await queue.enqueue(message, conversation_id=conversation, idempotency_key="k")


async def test_edge_a_key_is_free_again_when_its_request_is_forgotten() -> None:
    clock = FakeClock()
    async with RequestQueue(work=echo, clock=clock, keep_s=900, sweep_s=9e9) as queue:
        first = await queue.enqueue("x", idempotency_key="k")
        await queue.wait(first.request_id, 9)
        clock.now += 900
        second = await queue.enqueue("y", idempotency_key="k")
        assert second.request_id != first.request_id


async def test_keys_are_the_callers_own() -> None:
    async with RequestQueue(work=echo) as queue:
        mine = await queue.enqueue("x", caller="a", idempotency_key="k")
        theirs = await queue.enqueue("y", caller="b", idempotency_key="k")
        assert mine.request_id != theirs.request_id


# ---------------------------------------------------------------- stopping and the file


async def test_leaving_finishes_what_was_accepted() -> None:
    async with RequestQueue(1, work=echo) as queue:
        queued = [await queue.enqueue(str(number)) for number in range(5)]
    ends = [await queue.get_status(request.request_id) for request in queued]
    assert [end.result for end in ends if end] == ["0", "1", "2", "3", "4"]
    with pytest.raises(QueueFull, match="the service is stopping; try again in 20 s"):
        await queue.enqueue("late")


async def test_failure_what_does_not_finish_in_time_is_reported_as_interrupted() -> None:
    desk = Desk()
    async with RequestQueue(1, work=desk, drain_s=0) as queue:
        queued = [await queue.enqueue(message) for message in "ab"]
        await settle()
    ends = [await queue.get_status(request.request_id) for request in queued]
    assert [(end.status, end.error) for end in ends if end] == [("failed", "interrupted")] * 2
    assert not queue._tasks


async def test_with_a_file_what_waits_is_handed_to_the_next_start(tmp_path: Path) -> None:
    file, desk = tmp_path / "queue.db", Desk()
    async with RequestQueue(1, work=desk, journal=Journal(file), drain_s=0) as queue:
        queued = [await queue.enqueue(message, idempotency_key=message) for message in "abc"]
        await settle()
    async with RequestQueue(1, work=echo, journal=Journal(file)) as queue:
        again = await queue.enqueue("c", idempotency_key="c")
        assert (again.request_id, again.position) == (queued[2].request_id, 2)
        ends = [await queue.wait(request.request_id, 9) for request in queued]
        new = await queue.enqueue("d")
        assert (await queue.get_status(new.request_id) or new).position == 1
    assert [(end.status, end.result, end.error) for end in ends if end] == [
        ("failed", None, "interrupted"),
        ("completed", "b", None),
        ("completed", "c", None),
    ]


async def test_with_a_file_results_outlive_a_restart_until_they_expire(tmp_path: Path) -> None:
    file, clock = tmp_path / "queue.db", FakeClock()
    async with RequestQueue(work=echo, journal=Journal(file), clock=clock) as queue:
        queued = [await queue.enqueue("x"), await queue.enqueue("y")]
        for request in queued:
            await queue.wait(request.request_id, 9)
    async with RequestQueue(work=echo, journal=Journal(file), clock=clock) as queue:
        status = await queue.get_status(queued[0].request_id)
        assert status is not None and status.result == "x"
        clock.now += 900
        assert await queue.get_status(queued[0].request_id) is None
    with sqlite3.connect(file) as db:
        assert db.execute("SELECT count(*) FROM requests").fetchone() == (0,)
    db.close()
    assert file.stat().st_mode & 0o077 == 0


async def test_edge_the_order_survives_several_restarts(tmp_path: Path) -> None:
    file, order = tmp_path / "queue.db", []

    async def note(request: QueuedRequest) -> str:
        order.append(request.message)
        return ""

    for message in "abc":
        async with RequestQueue(1, work=note, journal=Journal(file)) as queue:
            for copy in range(3):
                await queue.enqueue(f"{message}{copy}")
            for number, job in enumerate(queue.requests.values()):
                assert (await queue.get_status(job.request_id) or job).status == "queued", number
    async with RequestQueue(1, work=note, journal=Journal(file)) as queue:
        assert [queue._position(job) for job in queue.requests.values()] == list(range(1, 10))
        await queue.wait(next(reversed(queue.requests)), 9)
    assert order == [f"{message}{copy}" for message in "abc" for copy in range(3)]


async def test_edge_who_waited_through_a_restart_stays_before_who_comes_then(tmp_path: Path) -> None:
    file, order = tmp_path / "queue.db", []

    async def note(request: QueuedRequest) -> str:
        order.append(request.message)
        return ""

    async with RequestQueue(1, work=note, journal=Journal(file)) as queue:
        for _ in range(2):
            await queue.cancel((await queue.enqueue("gone")).request_id)
        await queue.enqueue("first")
    async with RequestQueue(1, work=note, journal=Journal(file)) as queue:
        await queue.enqueue("second")
    async with RequestQueue(1, work=note, journal=Journal(file)) as queue:
        await queue.wait(next(reversed(queue.requests)), 9)
    assert order == ["first", "second"]


async def test_the_same_queue_starts_again_on_its_file(tmp_path: Path) -> None:
    desk = Desk()
    queue = RequestQueue(1, work=desk, journal=Journal(tmp_path / "queue.db"), drain_s=0)
    async with queue:
        queued = [await queue.enqueue(message, conversation_id="c", idempotency_key=message) for message in "abc"]
        queued.append(await queue.enqueue("d"))
        queued.append(await queue.enqueue("e"))
        await settle()
        await queue.cancel(queued[1].request_id)
        await queue.cancel(queued[3].request_id)
    async with queue:
        stands = [await queue.get_status(request.request_id) for request in queued]
        assert [(stand.status, stand.position) for stand in stands if stand] == [
            ("failed", None),
            ("cancelled", None),
            ("queued", 1),
            ("cancelled", None),
            ("queued", 2),
        ]
        await settle()
        await desk.end("c")
        await desk.end("e")
        assert len(queue.requests) == len(queue._finished) == 5 and not queue._waiting and not queue._turn
    assert desk.started == ["a", "c", "e"]


async def test_while_it_stops_with_a_file_who_waits_does_not_start_and_can_still_be_cancelled(tmp_path: Path) -> None:
    file, desk = tmp_path / "queue.db", Desk()
    queue = await RequestQueue(2, work=desk, journal=Journal(file)).__aenter__()
    ids = [(await queue.enqueue(message, conversation_id="c")).request_id for message in ("now", "next", "gone")]
    await settle()
    stopping = asyncio.create_task(queue.__aexit__(None, None, None))
    await settle()
    cancelled = await queue.cancel(ids[2])
    assert cancelled is not None and cancelled.status == "cancelled"
    await desk.end("now")
    await stopping
    assert desk.started == ["now"]
    async with RequestQueue(1, work=echo, journal=Journal(file)) as queue:
        ends = [await queue.wait(request_id, 9) for request_id in ids]
    assert [(end.status, end.result) for end in ends if end] == [
        ("completed", "answer to now"),
        ("completed", "next"),
        ("cancelled", None),
    ]


async def test_failure_a_stop_that_is_cut_short_stops_the_work_and_closes_the_file(tmp_path: Path) -> None:
    file, desk = tmp_path / "queue.db", Desk()
    queue = RequestQueue(1, work=desk, journal=Journal(file))
    await queue.__aenter__()
    queued = await queue.enqueue("busy")
    await settle()
    stopping = asyncio.create_task(queue.__aexit__(None, None, None))
    await settle()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert not queue._tasks and not desk.on_it
    async with RequestQueue(work=echo, journal=Journal(file, patience_s=0)) as queue:
        status = await queue.get_status(queued.request_id)
    assert status is not None and (status.status, status.error) == ("failed", "interrupted")


async def test_edge_the_time_between_two_lives_is_not_taken_for_service_time(tmp_path: Path) -> None:
    file, clock = tmp_path / "queue.db", FakeClock()
    async with RequestQueue(1, work=Desk(), journal=Journal(file), clock=clock, drain_s=0) as queue:
        queued = await queue.enqueue("x")
        await settle()
        queue._finish = lambda *_, **__: None  # type: ignore[method-assign]  # killed
    clock.now += 7_200
    async with RequestQueue(1, work=echo, journal=Journal(file), clock=clock) as queue:
        status = await queue.get_status(queued.request_id)
        assert status is not None and (status.status, status.error) == ("failed", "interrupted")
        assert queue.service_s is None


async def test_abuse_two_queues_on_one_file_are_refused(tmp_path: Path) -> None:
    async with RequestQueue(work=echo, journal=Journal(tmp_path / "queue.db")):
        second = RequestQueue(work=echo, journal=Journal(tmp_path / "queue.db", patience_s=0))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await second.__aenter__()
        with pytest.raises(QueueFull, match="stopping"):
            await second.enqueue("nobody would work on it")
        assert second._journal is not None
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            second._journal.forget("x")


VICTIM = """
import asyncio, pathlib, sys
from exercise_2_19_5_solution import Journal, RequestQueue

async def work(request):
    if request.message.startswith("slow"):
        await asyncio.sleep(600)
    return request.message

async def main():
    async with RequestQueue(2, work=work, journal=Journal(pathlib.Path(sys.argv[1]))) as queue:
        ids = [(await queue.enqueue(m)).request_id for m in ("quick", "slow-1", "slow-2", "waiting-1", "waiting-2")]
        await queue.wait(ids[0], 60)
        while len(queue._running) < 2:
            await asyncio.sleep(0.01)
        print(*ids, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is POSIX")
async def test_failure_after_kill_9_every_accepted_request_is_answered_once_or_reported(tmp_path: Path) -> None:
    file = tmp_path / "queue.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(EXAMINED), str(ROOT)))}
    victim = subprocess.Popen(  # noqa: ASYNC220  (nothing else runs on this loop)
        [sys.executable, "-c", VICTIM, str(file)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert victim.stdout
    with victim:
        ids = victim.stdout.readline().split()
        victim.send_signal(signal.SIGKILL)
    worked_on = []

    async def work(request: QueuedRequest) -> str:
        worked_on.append(request.message)
        return request.message

    async with RequestQueue(2, work=work, journal=Journal(file)) as queue:
        ends = [await queue.wait(request_id, 9) for request_id in ids]
    assert [(end.status, end.result, end.error) for end in ends if end] == [
        ("completed", "quick", None),
        ("failed", None, "interrupted"),
        ("failed", None, "interrupted"),
        ("completed", "waiting-1", None),
        ("completed", "waiting-2", None),
    ]
    assert worked_on == ["waiting-1", "waiting-2"]


MORTALS = """
import asyncio, os, pathlib, signal, sys
from exercise_2_19_5_solution import Journal, RequestQueue

MESSAGES = ("a1", "a2", "b", "fails", "gone", "c", "d")

class Deadly(Journal):
    def __init__(self, folder, writes):
        super().__init__(folder / "queue.db")
        self.left = writes

    def save(self, job):
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        super().save(job)

async def live(folder, writes):
    notes = os.open(folder / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def work(request):
        os.write(notes, f"started {request.request_id}\\n".encode())
        for _ in range(5):
            await asyncio.sleep(0)
        if request.message == "fails":
            raise KeyError
        return request.message

    async with RequestQueue(2, work=work, journal=Deadly(folder, writes)) as queue:
        accepted = []
        for message in MESSAGES:
            request = await queue.enqueue(message, conversation_id="a" if message[0] == "a" else None)
            os.write(notes, f"accepted {request.request_id} {message}\\n".encode())
            accepted.append(request.request_id)
            await asyncio.sleep(0)
        await queue.cancel(accepted[4])
        for request_id in accepted:
            told = await queue.wait(request_id, 60)
            os.write(notes, f"told {request_id} {told.status}\\n".encode())

alive, writes = False, 0
while not alive:
    folder = pathlib.Path(sys.argv[1], str(writes))
    folder.mkdir()
    child = os.fork()
    if not child:
        os.close(2)  # the failing request's traceback
        asyncio.run(live(folder, writes))
        os._exit(0)
    alive = os.waitpid(child, 0)[1] != signal.SIGKILL
    writes += 1
"""


def killed_lives(folder: Path) -> list[Path]:
    """Let processes be killed before their first, second, ... write; return what each left behind."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(EXAMINED), str(ROOT)))}
    subprocess.run([sys.executable, "-c", MORTALS, str(folder)], env=environment, check=True, timeout=60)
    return sorted(folder.iterdir(), key=lambda life: int(life.name))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9 and fork are POSIX")
async def test_failure_killed_before_any_of_its_writes_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    lives = killed_lives(tmp_path)
    assert len(lives) == 6 * 3 + 2 + 1, "written down when they come, start and end; cancelled in line; and not killed"
    ends_seen: set[tuple[str, str | None]] = set()
    for folder in lives:
        notes = [line.split() for line in (folder / "notes").read_text(encoding="utf-8").splitlines()]
        started = [note[1] for note in notes if note[0] == "started"]

        async def work(request: QueuedRequest, started: list[str] = started) -> str:
            started.append(request.request_id)
            return request.message

        async with RequestQueue(2, work=work, journal=Journal(folder / "queue.db")) as queue:
            ends = {note[1]: await queue.wait(note[1], 9) for note in notes if note[0] == "accepted"}
        assert len(started) == len(set(started)), f"{folder.name}: a request was worked on twice"
        for request_id, end in ends.items():
            assert end is not None and end.finished_at is not None, f"{folder.name}: an accepted request is lost"
            assert (end.status == "completed") == (end.result == end.message), folder.name
            assert end.error in (None, "interrupted", "internal_error"), folder.name
            assert end.status == "cancelled" or request_id in started or end.error == "interrupted", folder.name
            ends_seen.add((end.status, end.error))
        for note in notes:
            if note[0] == "told":
                end = ends[note[1]]
                assert end is not None and end.status == note[2], f"{folder.name}: what was told has changed"
    assert ends_seen == {
        ("completed", None), ("cancelled", None), ("failed", "interrupted"), ("failed", "internal_error"),
    }  # fmt: skip


# ---------------------------------------------------------------- over HTTP


class Service:
    """The app in this process, with the stand-in at hand."""

    def __init__(self, **arguments: Any) -> None:
        self.model = OfflineModel()
        self.arguments = arguments

    async def __aenter__(self) -> Service:
        from openai import AsyncOpenAI

        self._model_http = httpx.AsyncClient(transport=httpx.ASGITransport(self.model))
        client: Any = self._model_http
        openai = AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=client, max_retries=0)
        self.app: FastAPI = create_app(SETTINGS, client=openai, **self.arguments)
        self._life = self.app.router.lifespan_context(self.app)
        await self._life.__aenter__()
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://test", headers=KEY_A, timeout=30
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self._life.__aexit__(None, None, None)
        await self._model_http.aclose()

    async def chat(self, message: str = "What is 6 * 7?", **headers: str) -> httpx.Response:
        return await self.http.post("/v1/chat", json={"message": message}, headers=headers)


async def test_http_a_chat_is_accepted_at_once_and_its_answer_fetched() -> None:
    async with Service() as service:
        accepted = await service.chat()
        body = accepted.json()
        assert accepted.status_code == 202
        assert body["status"] == "queued" and body["position"] == 1 and "response" not in body
        assert accepted.headers["location"] == f"/status/{body['request_id']}"
        assert int(accepted.headers["retry-after"]) >= 1
        for prefix in ("", "/v1"):
            done = await service.http.get(f"{prefix}/status/{body['request_id']}?wait=20")
            assert done.status_code == 200 and "retry-after" not in done.headers
            assert done.json() == {
                "request_id": body["request_id"],
                "conversation_id": body["conversation_id"],
                "status": "completed",
                "response": "[stand-in] 6 * 7 = 42",
            }


async def test_http_with_a_file_a_result_outlives_the_service(tmp_path: Path) -> None:
    async with Service(journal=tmp_path / "queue.db") as service:
        path = (await service.chat()).headers["location"]
        done = await service.http.get(f"{path}?wait=20")
    async with Service(journal=tmp_path / "queue.db") as service:
        assert (await service.http.get(path)).json() == done.json()


async def test_http_a_pending_status_says_when_to_ask_again() -> None:
    async with Service() as service:
        path = (await service.chat()).headers["location"]
        pending = await service.http.get(path)
        assert pending.json()["status"] in ("queued", "processing") and pending.headers["retry-after"] in ("1", "2")


async def test_http_a_conversation_goes_on() -> None:
    async with Service() as service:
        said = {"message": "My name is Ada.", "conversation_id": "c"}
        await service.http.post("/v1/chat", json=said)
        asked = await service.http.post("/v1/chat", json=said | {"message": "What is my name?"})
        done = await service.http.get(f"{asked.headers['location']}?wait=20")
        assert done.json()["response"] == "[stand-in] Your name is Ada."


async def test_http_failure_of_the_model_is_a_stable_code() -> None:
    async with Service() as service:
        service.model.next(Fault(status=500))
        accepted = await service.chat()
        done = await service.http.get(f"{accepted.headers['location']}?wait=20")
        assert (done.json()["status"], done.json()["error"]) == ("failed", "model_unavailable")


async def test_http_abuse_unknown_and_foreign_requests_get_the_same_404() -> None:
    async with Service() as service:
        path = (await service.chat()).headers["location"]
        for method in ("GET", "DELETE"):
            foreign = await service.http.request(method, path, headers=KEY_B)
            unknown = await service.http.request(method, "/status/" + "0" * 32)
            assert foreign.status_code == unknown.status_code == 404
            assert foreign.content == unknown.content and foreign.headers == unknown.headers
            assert (await service.http.request(method, path, headers={"X-API-Key": "wrong"})).status_code == 401


async def test_http_a_full_line_is_a_503_with_retry_after() -> None:
    async with Service(max_concurrent=1, capacity=1) as service:
        service.model.next(Fault(hang=True))
        running = await service.chat("hang")
        for _ in range(100_000):
            if service.model.calls:
                break
            await asyncio.sleep(0)
        waiting = await service.chat("waits")
        refused = await service.chat("refused")
        assert (waiting.status_code, refused.status_code) == (202, 503)
        assert refused.headers["retry-after"] == "1"
        for version, response in (("", running), ("/v1", waiting)):
            cancelled = await service.http.delete(version + response.headers["location"])
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
            assert None not in cancelled.json().values()
        assert (await service.chat("again")).status_code == 202


async def test_http_idempotency_key() -> None:
    async with Service() as service:
        once = {"Idempotency-Key": "k"}
        many = await asyncio.gather(*(service.chat(**once) for _ in range(20)))
        assert {response.status_code for response in many} == {202}
        assert len({response.json()["request_id"] for response in many}) == 1
        assert (await service.chat("another", **once)).status_code == 422
        assert (await service.chat(**{"Idempotency-Key": "k" * 256})).status_code == 422


@pytest.mark.parametrize("wait", ["-1", "31", "nan", "x"])
async def test_http_edge_a_wait_out_of_bounds_is_refused(wait: str) -> None:
    async with Service() as service:
        path = (await service.chat()).headers["location"]
        assert (await service.http.get(f"{path}?wait={wait}")).status_code == 422


async def test_the_same_app_starts_twice() -> None:
    app = create_app(SETTINGS)
    for _ in range(2):
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test", headers=KEY_A) as http,
        ):
            accepted = await http.post("/v1/chat", json={"message": "hi"})
            done = await http.get(f"{accepted.headers['location']}?wait=20")
            assert done.json()["status"] == "completed"


def test_the_script_plays_its_transcript(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE", "1")
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.startswith("Exercise 2 (19.5): accept chats at once")
    for said in ("came  202", "Location: /status/", "6 * 7 = 42", "came  404", "came  422"):
        assert said in out


def test_a_file_that_another_process_holds_is_waited_for_for_a_second() -> None:
    assert inspect.signature(Journal).parameters["patience_s"].default == 1.0
