"""19.2.3: the limiter against an oracle, the app over HTTP, the script."""

from __future__ import annotations

import asyncio
import itertools
import re
from typing import Any

import pytest
from exercise_3_19_2_solution import LIMIT, MAX_KEYS, WINDOW_S, RateLimiter, Window, create_app, main
from hypothesis import given
from hypothesis import strategies as st

from shared.offline import Fault, OfflineModel
from tests.kit.fakes import FakeClock
from tests.kit.serving import KEYS, SETTINGS, client_of, serving

HELLO = {"message": "hello"}


@pytest.fixture
def limiter(clock: FakeClock) -> RateLimiter:
    return RateLimiter(clock=clock)


def test_the_defaults_are_the_chapters() -> None:
    limiter = RateLimiter()
    assert (limiter.limit, limiter.window_s, limiter.max_keys) == (10, 60.0, 100_000)
    assert (LIMIT, WINDOW_S, MAX_KEYS) == (10, 60.0, 100_000)


def test_edge_ten_pass_the_eleventh_does_not(limiter: RateLimiter) -> None:
    assert [limiter.hit("a") for _ in range(11)] == [True] * 10 + [False]


def test_edge_a_slot_is_free_after_exactly_sixty_seconds(limiter: RateLimiter, clock: FakeClock) -> None:
    for _ in range(10):
        limiter.hit("a")
    clock.now += 60 - 1 / 1024
    assert not limiter.hit("a")
    clock.now += 1 / 1024
    assert limiter.hit("a")


def test_no_boundary_lets_nineteen_through(limiter: RateLimiter, clock: FakeClock) -> None:
    limiter.hit("a")
    clock.now += 59
    accepted = sum(limiter.hit("a") for _ in range(9))
    clock.now += 1
    accepted += sum(limiter.hit("a") for _ in range(10))
    assert accepted == 9 + 1


def test_refused_requests_do_not_extend_the_wait(limiter: RateLimiter, clock: FakeClock) -> None:
    for _ in range(10):
        limiter.hit("a")
    for _ in range(59):
        clock.now += 1
        assert not limiter.hit("a")
    clock.now += 1
    assert limiter.hit("a")


def test_keys_do_not_affect_each_other(limiter: RateLimiter) -> None:
    assert all(limiter.hit("a") for _ in range(10))
    assert limiter.hit("b")


# Times are multiples of 1/1024, which floating point keeps exactly, so that the boundary is the boundary.
gaps = st.lists(st.integers(0, 30 * 1024).map(lambda n: n / 1024), min_size=1, max_size=80)


@given(gaps, st.integers(1, 5))
def test_it_equals_a_brute_force_count(gaps: list[float], limit: int) -> None:
    clock = FakeClock()
    limiter = RateLimiter(limit, 60.0, clock=clock)
    accepted: list[float] = []
    for gap in gaps:
        clock.now += gap
        within = [t for t in accepted if clock.now - t < 60.0]
        expected = len(within) < limit
        before = limiter.window("a")
        assert limiter.hit("a") == expected
        assert before.remaining == limit - len(within)
        if not expected:
            assert before.reset_s == 60.0 - (clock.now - within[0])
        if expected:
            accepted.append(clock.now)


@given(gaps)
def test_retry_after_is_the_first_whole_second_that_is_accepted(gaps: list[float]) -> None:
    clock = FakeClock()
    limiter = RateLimiter(3, 60.0, clock=clock)
    for gap in gaps:
        clock.now += gap
        if limiter.hit("a"):
            continue
        wait = limiter.window("a").retry_after_s
        assert wait >= 1
        now = clock.now
        clock.now = now + wait - 1
        assert limiter.window("a").remaining == 0
        clock.now = now + wait
        assert limiter.window("a").remaining > 0
        clock.now = now


def test_looking_counts_nothing_and_remembers_nobody(limiter: RateLimiter) -> None:
    for _ in range(100):
        assert limiter.window("a") == Window(10, 60.0, 10, 0.0)
    assert len(limiter) == 0
    assert limiter.window("a").retry_after_s == 0


def test_the_fields_of_the_draft() -> None:
    assert Window(10, 60.0, 3, 12.2).headers() == {
        "RateLimit-Policy": '"default";q=10;w=60',
        "RateLimit": '"default";r=3;t=13',
    }
    assert Window(10, 60.0, 0, 12.2).headers()["Retry-After"] == "13"
    assert Window(10, 60.0, 1, 12.2).retry_after_s == 0


def test_windows_are_values() -> None:
    with pytest.raises(AttributeError):
        Window(10, 60.0, 3, 12.2).remaining = 4  # type: ignore[misc]


def test_idle_keys_are_forgotten_when_a_new_one_comes(limiter: RateLimiter, clock: FakeClock) -> None:
    limiter.hit("idle")
    limiter.hit("busy")
    clock.now += 30
    limiter.hit("busy")
    clock.now += 30
    limiter.hit("new")
    assert len(limiter) == 2
    assert limiter.window("busy").remaining == 9


def test_the_key_that_was_accepted_last_is_forgotten_last(limiter: RateLimiter, clock: FakeClock) -> None:
    for key in ("busy", "idle", "busy"):
        limiter.hit(key)
        clock.now += 30
    limiter.hit("new")
    assert len(limiter) == 2, "busy came first, but idle was idle first"


def test_a_known_key_whose_hits_are_old_stands_like_a_new_one(limiter: RateLimiter, clock: FakeClock) -> None:
    limiter.hit("a")
    clock.now += 60
    assert limiter.window("a") == Window(10, 60.0, 10, 0.0)


def test_abuse_a_flood_of_keys_stays_within_the_cap_and_lets_nobody_start_over(clock: FakeClock) -> None:
    limiter = RateLimiter(2, 60.0, max_keys=3, clock=clock)
    for key in "abc":
        clock.now -= 5
        assert limiter.hit(key)
        clock.now += 6
        assert limiter.hit(key)
    assert not any(limiter.hit(f"flood-{n}") for n in range(1000))
    assert len(limiter) == 3
    assert not limiter.hit("a"), "an active key must not be forgotten"
    assert limiter.window("flood").remaining == 0
    assert limiter.window("flood").retry_after_s == 58, "the first key goes idle 60 s after its last hit"
    assert limiter.window("b").retry_after_s == 53, "a known key waits for its own oldest hit"
    clock.now += 58
    assert limiter.hit("flood")
    assert len(limiter) == 3


def test_a_known_key_is_served_while_the_table_is_full(clock: FakeClock) -> None:
    limiter = RateLimiter(2, 60.0, max_keys=1, clock=clock)
    assert limiter.hit("a")
    assert limiter.window("a").remaining == 1
    assert limiter.hit("a")


@pytest.mark.parametrize("arguments", [{"limit": 0}, {"window_s": 0}, {"window_s": -1}, {"max_keys": 0}])
def test_nonsense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        RateLimiter(**arguments)


def test_the_smallest_limiter_works() -> None:
    limiter = RateLimiter(1, 0.5, max_keys=1, clock=itertools.count(0.0, 0.25).__next__)
    assert [limiter.hit("a") for _ in range(5)] == [True, False, True, False, True]


# ---------------------------------------------------------------- over HTTP


@pytest.mark.anyio
async def test_both_answers_carry_the_fields_and_only_the_refusal_a_retry_after(clock: FakeClock) -> None:
    limiter = RateLimiter(1, 60.0, clock=clock)
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), limiter=limiter)) as http:
        accepted = await http.post("/v1/chat", json=HELLO)
        clock.now += 10
        refused = await http.post("/v1/chat", json=HELLO)
    assert (accepted.status_code, refused.status_code) == (200, 429)
    assert accepted.json()["response"].endswith("hello")
    assert accepted.headers["ratelimit"] == '"default";r=0;t=60'
    assert refused.headers["ratelimit"] == '"default";r=0;t=50'
    assert accepted.headers["ratelimit-policy"] == refused.headers["ratelimit-policy"] == '"default";q=1;w=60'
    assert refused.headers["retry-after"] == "50"
    assert refused.json() == {"detail": "at most 1 requests in 60 s"}


@pytest.mark.anyio
async def test_an_accepted_request_says_when_it_may_not_go_on() -> None:
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()))) as http:
        first = await http.post("/v1/chat", json=HELLO)
    assert "retry-after" not in first.headers


@pytest.mark.anyio
async def test_two_hundred_at_once_and_exactly_ten_pass() -> None:
    model = OfflineModel(delay_s=0.01)
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        answers = await asyncio.gather(*(http.post("/v1/chat", json=HELLO) for _ in range(200)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 190
    assert len(model.calls) == 10


@pytest.mark.anyio
@pytest.mark.parametrize("key", [None, "", "wrong", "alice-key ", "ALICE-KEY", "alice-key,bob-key", "\u00e9".encode()])
async def test_abuse_keys_that_are_not_valid_get_401_and_never_an_entry(key: str | None) -> None:
    limiter = RateLimiter()
    async with serving(create_app(SETTINGS, limiter=limiter), key=None) as http:
        for _ in range(12):
            answer = await http.post("/v1/chat", json=HELLO, headers={} if key is None else {"X-API-Key": key})
            assert answer.status_code == 401
            assert "ratelimit" not in answer.headers
    assert len(limiter) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["x/health?", "x/health#", "localhost/health", "health"])
async def test_abuse_no_host_header_opens_the_gate(host: str) -> None:
    limiter = RateLimiter(1, 60.0)
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), limiter=limiter)) as http:
        await http.post("/v1/chat", json=HELLO)
        refused = await http.post("/v1/chat", json=HELLO, headers={"Host": host})
        assert refused.status_code == 429


@pytest.mark.anyio
async def test_each_caller_has_their_own_conversations_and_their_own_ten() -> None:
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()))) as http:
        told = await http.post("/v1/chat", json={"message": "My name is Ada", "conversation_id": "c"})
        assert told.json()["conversation_id"] == "c"
        ask = {"message": "What is my name?", "conversation_id": "c"}
        mine = await http.post("/v1/chat", json=ask)
        theirs = await http.post("/v1/chat", json=ask, headers={"X-API-Key": KEYS[1]})
    assert "Ada" in mine.json()["response"]
    assert "Ada" not in theirs.json()["response"]
    assert theirs.headers["ratelimit"].startswith('"default";r=9')


@pytest.mark.anyio
async def test_new_conversations_get_an_id_of_their_own() -> None:
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()))) as http:
        ids = {(await http.post("/v1/chat", json=HELLO)).json()["conversation_id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault(status=500), 502), (Fault(status=429, retry_after_s=7), 503), (Fault(garbage=True), 502)],
)
async def test_failure_when_the_model_is_down_the_answer_says_so_and_the_request_counts(
    fault: Fault, status: int
) -> None:
    model, limiter = OfflineModel(), RateLimiter(2, 60.0)
    model.next(fault)
    async with serving(create_app(SETTINGS, client=client_of(model), limiter=limiter)) as http:
        failed = await http.post("/v1/chat", json=HELLO)
        assert failed.status_code == status
        assert failed.headers.get("retry-after") == ("7" if status == 503 else None)
        assert (await http.post("/v1/chat", json=HELLO)).status_code == 200
        assert (await http.post("/v1/chat", json=HELLO)).status_code == 429


@pytest.mark.anyio
async def test_health_has_no_key_and_no_limit() -> None:
    async with serving(create_app(SETTINGS), key=None) as http:
        assert {(await http.get("/health")).status_code for _ in range(20)} == {200}


def test_the_script_plays_its_transcript(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.splitlines()[0] == "Exercise 3 (19.2): allow ten requests a minute per API key."
    assert "model: the stand-in" in out.splitlines()[1]
    assert re.findall(r"came  (\d+)", out) == ["200", "200", "429", "200", "401"]
    assert "Retry-After: 60" in out
