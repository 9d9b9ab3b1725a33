"""One contract for every store: memory, SQLite, Redis and PostgreSQL pass the same tests, against real servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from exercise_1_19_2_solution import ConversationIndex, UnknownConversation
from exercise_2_19_5_solution import IdempotencyConflict, QueuedRequest, QueueFull, RequestQueue
from exercise_2_19_6_solution import OfflineEmbedder
from exercise_3_19_2_solution import RateLimiter
from exercise_3_19_6_solution import CostDashboard
from pydantic import SecretStr
from redis.asyncio import Redis

from production.postgres_stores import PostgresAnswers, PostgresCosts, PostgresIndex, PostgresTurns, open_postgres
from production.redis_stores import RedisClaims, RedisCounters, RedisJobs, RedisLimits
from production.sqlite_stores import open_sqlite
from production.stores import LocalClaims, LocalCounters, LocalIndex, LocalLimits, embedded
from shared.agent import Turns
from tests.kit.fakes import FakeClock
from tests.production.test_app import config_of

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def redis_client(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    client = Redis.from_url(request.getfixturevalue("redis_url"))
    try:
        yield client
    finally:
        await client.aclose()


# ---------------------------------------------------------------- limits


@pytest.fixture(params=["memory", "redis"])
async def limits(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield LocalLimits(RateLimiter(3, 60.0, clock=clock))
        return
    async with redis_client(request) as client:
        yield RedisLimits(client, 3, 60.0, clock=clock)


async def test_limits_are_exact_in_every_window(limits: Any, clock: FakeClock) -> None:
    chance = random.Random(7)
    accepted: list[float] = []
    for _ in range(150):
        clock.now += chance.expovariate(1 / 6)
        recent = [at for at in accepted if clock.now - at < 60.0]
        passed, window = await limits.hit("key")
        assert passed == (len(recent) < 3)
        accepted += [clock.now] if passed else []
        active = [at for at in accepted if clock.now - at < 60.0][-3:]
        assert window.remaining == 3 - len(active)
        assert window.reset_s == pytest.approx(60.0 - (clock.now - active[0]), abs=1e-3)


async def test_limits_keep_keys_apart_and_say_when_to_come_back(limits: Any, clock: FakeClock) -> None:
    for _ in range(3):
        assert (await limits.hit("a"))[0]
    refused, window = await limits.hit("a")
    assert (refused, window.retry_after_s) == (False, 60)
    assert (await limits.hit("b"))[0]
    clock.now += window.retry_after_s
    assert (await limits.hit("a"))[0]


async def test_limits_hold_when_all_come_at_once(limits: Any) -> None:
    passed = await asyncio.gather(*(limits.hit("key") for _ in range(40)))
    assert sum(accepted for accepted, _ in passed) == 3


# ---------------------------------------------------------------- claims and counters


@pytest.fixture(params=["memory", "redis"])
async def claims(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield LocalClaims()
        return
    async with redis_client(request) as client:
        yield RedisClaims(client)


async def test_a_claim_is_given_to_one_until_it_is_given_back(claims: Any) -> None:
    assert sum(await asyncio.gather(*(claims.claim("alert", 60) for _ in range(20)))) == 1
    assert await claims.claim("other", 60)
    await claims.give_back("alert")
    assert await claims.claim("alert", 60)


async def test_counters_of_processes_add_up_and_the_slowest_quantile_stands(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = '# TYPE n counter\nn{a="x"} 2\n# TYPE s summary\ns{quantile="0.95"} 0.5\ns_sum 1.5\ns_count 2\n'
    two = one.replace("0.5", "0.25") + "# TYPE m counter\nm 1\n"
    sums = '# TYPE n counter\nn{a="x"} 4\n# TYPE s summary\n%ss_sum 3\ns_count 4\n# TYPE m counter\nm 1\n'
    assert await LocalCounters().combined(one) == one
    async with redis_client(request) as client:
        first, second = RedisCounters(client, name="1"), RedisCounters(client, name="2")
        await first.combined(one)
        assert await second.combined(two) == sums % 's{quantile="0.95"} 0.5\n'
        monkeypatch.setattr("production.redis_stores.KEEP_QUANTILES_S", -1)  # both are too old to hold
        assert await second.combined(two) == sums % ""


# ---------------------------------------------------------------- the index of conversations


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def index(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield LocalIndex(ConversationIndex(max_per_owner=4, clock=clock))
    elif request.param == "sqlite":
        config = config_of(tmp_path)
        async with open_sqlite(config, embedded(config)) as stores:
            kept: Any = stores.index
            kept.index.max_per_owner, kept.index._clock = 4, clock
            yield kept
    else:
        config = config_of(tmp_path, database_url=SecretStr(request.getfixturevalue("database_url")))
        async with open_postgres(config, embedded(config)) as stores:
            shared: Any = stores.index
            yield PostgresIndex(shared._pool, max_per_owner=4, clock=clock)


async def test_the_list_pages_without_repeating_or_skipping(index: Any, clock: FakeClock) -> None:
    for name in "abc":
        clock.now += 1
        await index.record("owner", name)
    first = await index.page("owner", limit=2, after=None, order="desc")
    assert (first.ids, first.has_more) == (("c", "b"), True)
    clock.now += 1
    await index.record("owner", "d")
    await index.remove("owner", "b")
    rest = await index.page("owner", limit=2, after="b", order="desc")
    assert (rest.ids, rest.has_more) == (("a",), False)
    assert (await index.page("owner", limit=9, after=None, order="asc")).ids == ("a", "c", "d")
    assert (await index.page("other", limit=9, after=None, order="asc")).ids == ()


async def test_the_list_drops_who_was_idle_for_longest_and_knows_only_its_owners(index: Any, clock: FakeClock) -> None:
    for name in "abcd":
        clock.now += 1
        assert await index.record("owner", name) == []
    clock.now += 1
    assert await index.record("owner", "a") == []
    clock.now += 1
    assert await index.record("owner", "e") == ["b"]
    assert (await index.get("owner", "a")).created_at < (await index.get("owner", "a")).last_turn_at
    for owner, name in (("owner", "b"), ("other", "a"), ("owner", "never")):
        with pytest.raises(UnknownConversation):
            await index.get(owner, name)
        with pytest.raises(UnknownConversation):
            await index.remove(owner, name)
    with pytest.raises(UnknownConversation):
        await index.page("owner", limit=2, after="never", order="desc")


async def test_a_removed_conversation_begins_anew(index: Any, clock: FakeClock) -> None:
    await index.record("owner", "a")
    await index.record("owner", "b")
    await index.remove("owner", "a")
    clock.now += 5
    await index.record("owner", "a")
    assert (await index.page("owner", limit=9, after=None, order="asc")).ids == ("b", "a")
    assert (await index.get("owner", "a")).created_at == clock.now


# ---------------------------------------------------------------- costs


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def boards(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], CostDashboard]:
    if request.param == "postgres":
        url = request.getfixturevalue("database_url")
        return lambda: PostgresCosts(url, monthly_budget_usd=Decimal(1))
    path = str(tmp_path / "costs.sqlite3") if request.param == "sqlite" else ":memory:"
    return lambda: CostDashboard(path, monthly_budget_usd=Decimal(1))


async def test_costs_add_up_to_the_last_digit(boards: Any) -> None:
    board = boards()
    others = boards()
    for number in range(300):
        board.record(f"caller-{number % 3}", f"c{number % 7}", "gpt-4o", Decimal(number) / 10**9, tokens=5)
    board.record("caller-0", "c0", "unheard-of", None)
    board.flush()
    others.record("caller-1", "c0", "gpt-4o", Decimal("0.000000001"))
    others.flush()
    shared = (await others.get_full_dashboard())["spending_by_model"]["total_usd"] > 1e-6
    views = await board.get_full_dashboard()
    total = Decimal(sum(range(300)) + (1 if shared else 0)) / 10**9
    assert Decimal(str(views["spending_by_model"]["total_usd"])) == total
    assert Decimal(str(views["hourly_spending"]["total_usd"])) == total
    assert Decimal(str(views["expensive_conversations"]["total_usd"])) == total
    assert views["spending_by_model"]["unpriced_calls"] == 1
    assert Decimal(str(views["budget_status"]["spent_usd"])) == total
    one = await board.get_full_dashboard("caller-2")
    assert Decimal(str(one["spending_by_model"]["total_usd"])) == Decimal(sum(range(2, 300, 3))) / 10**9
    board.close()
    others.close()


# ---------------------------------------------------------------- turns


@pytest.fixture(params=["memory", "postgres"])
async def turns(request: pytest.FixtureRequest) -> AsyncIterator[list[Any]]:
    if request.param == "memory":
        one = Turns()
        yield [one, one]
        return
    url = request.getfixturevalue("database_url")
    both = [PostgresTurns(url), PostgresTurns(url)]  # as two processes would
    yield both
    for each in both:
        await each.close()


async def test_one_turn_at_a_time_in_a_conversation(turns: list[Any]) -> None:
    inside, most, others = 0, 0, 0

    async def take(turn: Any, name: str) -> None:
        nonlocal inside, most, others
        async with turn(name):
            if name == "other":
                others += 1
                return
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(take(turns[n % 2], "other" if n % 5 == 4 else "c") for n in range(20)))
    assert (most, inside, others) == (1, 0, 4)


async def test_a_turn_ends_with_its_process(database_url: str) -> None:
    dying, living = PostgresTurns(database_url), PostgresTurns(database_url)
    turn = dying("c")
    await turn.__aenter__()
    await dying.close()  # what the system does for a killed process
    async with asyncio.timeout(20), living("c"):
        pass
    await turn.__aexit__(None, None, None)
    await dying.close()
    await living.close()


# ---------------------------------------------------------------- the queue


@pytest.fixture(params=["memory", "redis"])
async def queue_of(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Yield a function that opens a queue around some work."""
    if request.param == "memory":
        yield lambda work, **options: RequestQueue(options.pop("concurrent", 5), work=work, **options)
        return
    async with redis_client(request) as client:
        yield lambda work, **options: RedisJobs(client, work, look_s=0.2, heartbeat_s=3, **options).running()


async def test_the_queue_answers_every_request_once_and_in_order_per_conversation(queue_of: Any) -> None:
    seen: list[tuple[str, str]] = []

    async def work(request: QueuedRequest) -> str:
        await asyncio.sleep(0)
        seen.append((request.conversation_id, request.message))
        return request.message.upper()

    async with queue_of(work) as queue:
        asked = [await queue.enqueue(f"m{n:02}", caller="a", conversation_id=f"c{n % 4}") for n in range(24)]
        done = [await queue.wait(request.request_id, 30, caller="a") for request in asked]
    assert [request.result for request in done] == [f"M{n:02}" for n in range(24)]
    assert all(request.status == "completed" and request.finished_at for request in done)
    for conversation in ("c0", "c1", "c2", "c3"):
        said = [message for name, message in seen if name == conversation]
        assert said == sorted(said)
    assert len(seen) == 24


async def test_the_queue_tells_positions_refuses_when_full_and_hides_foreign_requests(queue_of: Any) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work(request: QueuedRequest) -> str:
        begun.set()
        await may_end.wait()
        return "done"

    async with queue_of(work, concurrent=1, capacity=2) as queue:
        first = await queue.enqueue("1", caller="a")
        await asyncio.wait_for(begun.wait(), 20)
        second, third = await queue.enqueue("2", caller="a"), await queue.enqueue("3", caller="a")
        assert (second.position, third.position) == (1, 2)
        with pytest.raises(QueueFull) as full:
            await queue.enqueue("4", caller="a")
        assert full.value.retry_after_s >= 1
        assert await queue.wait(first.request_id, 0, caller="b") is None
        assert await queue.cancel(first.request_id, caller="b") is None
        cancelled = await queue.cancel(second.request_id, caller="a")
        assert cancelled.status == "cancelled"
        assert (await queue.wait(third.request_id, 0, caller="a")).position == 1
        assert queue.retry_after_s(third) >= 1
        may_end.set()
        ended = await queue.wait(third.request_id, 30, caller="a")
        assert (ended.status, ended.result, queue.retry_after_s(ended)) == ("completed", "done", 0)
        assert (await queue.cancel(third.request_id, caller="a")).status == "completed"


async def test_the_queue_knows_a_request_again_by_its_key(queue_of: Any) -> None:
    calls = 0

    async def work(request: QueuedRequest) -> str:
        nonlocal calls
        calls += 1
        return "done"

    async with queue_of(work) as queue:
        sent = await asyncio.gather(*(queue.enqueue("m", caller="a", idempotency_key="k") for _ in range(8)))
        assert len({request.request_id for request in sent}) == 1
        await queue.wait(sent[0].request_id, 30, caller="a")
        again = await queue.enqueue("m", caller="a", idempotency_key="k")
        assert (again.request_id, again.status) == (sent[0].request_id, "completed")
        with pytest.raises(IdempotencyConflict):
            await queue.enqueue("another", caller="a", idempotency_key="k")
        other = await queue.enqueue("m", caller="b", idempotency_key="k")
        assert other.request_id != again.request_id
        await queue.wait(other.request_id, 30, caller="b")
    assert calls == 2


async def test_the_queue_reports_what_failed_by_its_code(queue_of: Any) -> None:
    class Broken(Exception):
        code = "model_busy"

    async def work(request: QueuedRequest) -> str:
        if request.message == "slow":
            await asyncio.Event().wait()
        raise Broken if request.message == "code" else ValueError("secret words")

    async with queue_of(work, timeout_s=1) as queue:
        asked = {name: await queue.enqueue(name, caller="a") for name in ("code", "plain", "slow")}
        ended = {name: await queue.wait(request.request_id, 30, caller="a") for name, request in asked.items()}
    assert {name: (r.status, r.error) for name, r in ended.items()} == {
        "code": ("failed", "model_busy"), "plain": ("failed", "internal_error"), "slow": ("failed", "timeout"),
    }  # fmt: skip


# ---------------------------------------------------------------- shared answers


async def test_shared_answers_are_found_by_meaning_and_guarded(
    tmp_path: Path, database_url: str, clock: FakeClock
) -> None:
    config, embed = config_of(tmp_path, database_url=SecretStr(database_url)), OfflineEmbedder()
    async with open_postgres(config, embedded(config)) as stores:
        if stores.answers is None:
            pytest.skip("this PostgreSQL has no pgvector")
        shared: Any = stores.answers
        answers = PostgresAnswers(shared._pool, embed.threshold, ttl_s=60, clock=clock)

        async def find(message: str, scope: str = "s") -> str | None:
            return await answers.find(message, scope, embed(message))

        await answers.keep("What's the weather?", "Sunny.", "s", embed("What's the weather?"))
        await answers.keep("Convert 10 USD to EUR", "9 EUR", "s", embed("Convert 10 USD to EUR"))
        assert await find("What's the weather?") == "Sunny."
        assert await find("How's the weather today?") == "Sunny."
        assert await find("Convert 100 USD to EUR") is None
        assert await find("What's the weather?", "another caller") is None
        clock.now += 61
        assert await find("What's the weather?") is None


async def test_a_caller_who_leaves_while_asking_for_a_turn_leaves_it_to_the_others(database_url: str) -> None:
    left, other = PostgresTurns(database_url), PostgresTurns(database_url)
    ask, asked, go_on = left._ask, asyncio.Event(), asyncio.Event()

    async def slowly(query: str, conversation_id: str) -> bool:
        got = await ask(query, conversation_id)
        asked.set()
        await go_on.wait()
        return got

    async def take(turns: PostgresTurns) -> None:
        async with turns("c"):
            pass

    left._ask = slowly  # type: ignore[method-assign]
    try:
        leaving = asyncio.create_task(take(left))
        await asked.wait()
        leaving.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.wait_for(take(other), 20)
    finally:
        await left.close()
        await other.close()
