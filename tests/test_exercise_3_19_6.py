"""19.6.3: the dashboard against Decimal sums, its budget, its restart, the app and its page, the script."""

from __future__ import annotations

import asyncio
import base64
import calendar
import dataclasses
import hashlib
import math
import re
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from exercise_3_19_6_solution import (
    BATCH,
    FLUSH_S,
    NANO,
    PAGE,
    CostDashboard,
    CostSettings,
    Month,
    OverBudget,
    bar,
    create_app,
    main,
    strict_policy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.api import caller_id
from shared.config import SettingsError
from shared.offline import Fault, OfflineModel
from shared.pricing import cost_usd
from tests.kit.fakes import FakeClock
from tests.kit.serving import KEYS, SETTINGS, client_of, serving

NOON = datetime(2026, 11, 22, 12, 30, tzinfo=UTC).timestamp()
HOUR = 3600
ALICE, BOB = map(caller_id, KEYS)
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def costs(clock: FakeClock) -> CostDashboard:
    return CostDashboard(monthly_budget_usd=Decimal(10), clock=clock)


def view(costs: CostDashboard, caller: str | None = None) -> dict[str, Any]:
    return asyncio.run(costs.get_full_dashboard(caller))


def files_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def exact(amount: float) -> Decimal:
    return Decimal(repr(amount))


# ---------------------------------------------------------------- sums

calls = st.lists(
    st.tuples(
        st.integers(0, 5 * HOUR),  # seconds since the last call
        st.sampled_from(["alice", "bob"]),
        st.sampled_from(["c1", "c2", "c3"]),
        st.sampled_from(["gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "unknown"]),
        st.integers(0, 100_000),
        st.integers(0, 20_000),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(calls)
def test_hours_models_and_conversations_equal_decimal_sums_to_the_last_digit(
    calls: list[tuple[int, str, str, str, int, int]],
) -> None:
    clock = FakeClock(NOON)
    costs = CostDashboard(clock=clock)
    truth: list[tuple[float, str, str, str, Decimal]] = []
    for gap, caller, conversation, model, tokens_in, tokens_out in calls:
        clock.now += gap
        cost = None if model == "unknown" else cost_usd(model, tokens_in, tokens_out, tokens_in // 3)
        costs.record(caller, conversation, model, cost, tokens=tokens_in + tokens_out)
        truth.append((clock.now, caller, conversation, model, cost or Decimal(0)))
    first_hour = clock.now // HOUR * HOUR - 23 * HOUR
    for whose in ("alice", "bob", None):
        mine = [row for row in truth if whose in (None, row[1])]
        total = sum((row[4] for row in mine), Decimal(0))
        board = view(costs, whose)
        hourly, models, top = (
            board[name] for name in ("hourly_spending", "spending_by_model", "expensive_conversations")
        )
        recent = sum((row[4] for row in mine if row[0] >= first_hour), Decimal(0))
        assert exact(hourly["total_usd"]) == recent == sum(map(exact, hourly["series"][0]["data"]))
        assert exact(hourly["earlier_usd"]) == total - recent
        assert exact(models["total_usd"]) == exact(top["total_usd"]) == total
        assert sum(map(exact, top["series"][0]["data"])) + exact(top["others_usd"]) == total
        by_model = {row["model"]: exact(row["cost_usd"]) for row in models["models"]}
        assert by_model == {
            name: sum((row[4] for row in mine if row[3] == name), Decimal(0)) for name in {row[3] for row in mine}
        }
        by_conversation: Counter[tuple[str, str]] = Counter()
        for _, owner, name, _, cost in mine:
            by_conversation[owner, name] += cost  # type: ignore[assignment]
        assert [exact(row["cost_usd"]) for row in top["conversations"]] == sorted(
            by_conversation.values(), reverse=True
        )
        assert models["unpriced_calls"] == sum(row[3] == "unknown" for row in mine)
        month = Month.of(clock.now)
        assert exact(board["budget_status"]["spent_usd"]) == sum(
            (r[4] for r in mine if r[0] >= month.start), Decimal(0)
        )
    costs.close()


def test_one_embedding_of_eight_tokens_is_not_rounded_away(costs: CostDashboard) -> None:
    costs.record(ALICE, "c", "text-embedding-3-small", cost_usd("text-embedding-3-small", 8), tokens=8)
    assert view(costs)["spending_by_model"]["models"] == [
        {"model": "text-embedding-3-small", "cost_usd": 1.6e-07, "calls": 1, "unpriced_calls": 0, "tokens": 8}
    ]


def test_the_five_views_are_the_chapters_and_each_is_there_alone(costs: CostDashboard) -> None:
    costs.record(ALICE, "c", "gpt-4o", Decimal("0.5"))

    async def each() -> dict[str, Any]:
        return {
            "budget_status": await costs.get_budget_status(),
            "hourly_spending": await costs.get_hourly_spending(24),
            "spending_by_model": await costs.get_spending_by_model(),
            "expensive_conversations": await costs.get_expensive_conversations(10),
            "projections": await costs.get_projected_monthly(),
        }

    assert asyncio.run(each()) == view(costs)


def test_an_unknown_model_is_unpriced_and_never_guessed(costs: CostDashboard) -> None:
    costs.record(ALICE, "c", "gpt-9", None)
    costs.record(ALICE, "c", "gpt-9", None, tokens=100)
    models = view(costs)["spending_by_model"]
    assert models["models"] == [
        {"model": "gpt-9", "cost_usd": 0.0, "calls": 2, "unpriced_calls": 2, "tokens": 100},
    ]
    assert models["unpriced_calls"] == 2


def test_the_dearest_model_stands_first(costs: CostDashboard) -> None:
    for model, usd in (("a", "0.1"), ("b", "0.3"), ("c", "0.2")):
        costs.record(ALICE, "x", model, Decimal(usd))
    assert view(costs)["spending_by_model"]["labels"] == ["b", "c", "a"]
    assert view(costs)["spending_by_model"]["series"] == [{"name": "USD", "data": [0.3, 0.2, 0.1]}]


# ---------------------------------------------------------------- hours


def test_there_are_24_utc_hours_and_the_last_is_marked_as_partial(costs: CostDashboard, clock: FakeClock) -> None:
    costs.record(ALICE, "c", "m", Decimal("0.25"))
    hourly = view(costs)["hourly_spending"]
    assert len(hourly["labels"]) == len(hourly["series"][0]["data"]) == 24
    assert (hourly["labels"][0], hourly["labels"][-1]) == ("2026-11-21T13:00Z", "2026-11-22T12:00Z")
    assert hourly["partial"] == hourly["labels"][-1]
    assert hourly["series"][0]["data"] == [0.0] * 23 + [0.25]
    assert len(asyncio.run(costs.get_hourly_spending(3))["labels"]) == 3
    assert len(asyncio.run(costs.get_hourly_spending())["labels"]) == 24


def test_edge_an_hour_leaves_the_view_when_it_is_24_hours_old(costs: CostDashboard, clock: FakeClock) -> None:
    costs.record(ALICE, "c", "m", Decimal(1))
    clock.now += 23 * HOUR
    hourly = view(costs)["hourly_spending"]
    assert (hourly["series"][0]["data"][0], hourly["total_usd"], hourly["earlier_usd"]) == (1.0, 1.0, 0.0)
    clock.now += HOUR
    hourly = view(costs)["hourly_spending"]
    assert (sum(hourly["series"][0]["data"]), hourly["total_usd"], hourly["earlier_usd"]) == (0.0, 0.0, 1.0)


def test_edge_the_hour_changes_on_the_full_hour(costs: CostDashboard, clock: FakeClock) -> None:
    clock.now = NOON + HOUR / 2 - 1
    costs.record(ALICE, "c", "m", Decimal(1))
    clock.now += 1
    costs.record(ALICE, "c", "m", Decimal(2))
    assert view(costs)["hourly_spending"]["series"][0]["data"][-2:] == [1.0, 2.0]


# ---------------------------------------------------------------- conversations


def test_the_ten_dearest_are_shown_and_the_others_summed_up(costs: CostDashboard) -> None:
    for index in (7, 3, 11, 0, 5, 9, 1, 10, 2, 8, 4, 6):
        costs.record(ALICE, f"c{index}", "m", Decimal(index))
    assert len(asyncio.run(costs.get_expensive_conversations())["labels"]) == 10
    top = view(costs, ALICE)["expensive_conversations"]
    assert top["labels"] == [f"c{index}" for index in range(11, 1, -1)]
    assert top["others_usd"] == 1.0
    assert top["conversations"][0] == {"conversation_id": "c11", "cost_usd": 11.0, "calls": 1}
    assert top["series"] == [{"name": "USD", "data": [float(index) for index in range(11, 1, -1)]}]


def test_callers_with_the_same_conversation_id_are_two(costs: CostDashboard) -> None:
    costs.record(ALICE, "c", "m", Decimal(1))
    costs.record(BOB, "c", "m", Decimal(2))
    assert [row["cost_usd"] for row in view(costs, ALICE)["expensive_conversations"]["conversations"]] == [1.0]
    everybody = view(costs)["expensive_conversations"]["conversations"]
    assert [(row["caller"], row["cost_usd"]) for row in everybody] == [(BOB, 2.0), (ALICE, 1.0)]


# ---------------------------------------------------------------- projection


def test_under_an_hour_there_is_not_enough_data(costs: CostDashboard, clock: FakeClock) -> None:
    assert view(costs)["projections"]["status"] == "not enough data"
    costs.record(ALICE, "c", "m", Decimal(1))
    clock.now += HOUR - 1
    assert view(costs)["projections"]["status"] == "not enough data"
    assert view(costs)["projections"]["expected_usd"] is None
    clock.now += 1
    projection = view(costs)["projections"]
    assert projection["status"] == "projected"
    assert projection["observed_hours"] == 1.0
    clock.now += HOUR / 3
    assert view(costs)["projections"]["observed_hours"] == 1.33


@pytest.mark.parametrize(("year", "month"), [(2026, 2), (2028, 2), (2026, 4), (2026, 12)])
def test_steady_spending_is_projected_to_the_days_of_the_month(year: int, month: int) -> None:
    clock = FakeClock(datetime(year, month, 1, tzinfo=UTC).timestamp())
    costs = CostDashboard(clock=clock)
    for _ in range(48):
        costs.record(ALICE, "c", "m", Decimal("0.5"))
        clock.now += HOUR
    projection = view(costs)["projections"]
    whole = 24 * calendar.monthrange(year, month)[1] * 0.5
    assert projection["expected_usd"] == pytest.approx(whole)
    assert projection["low_usd"] == projection["high_usd"] == projection["expected_usd"], "nothing strays"
    assert (projection["spent_usd"], projection["month"]) == (24.0, f"{year}-{month:02d}")


def test_the_range_is_that_of_single_hours_and_never_below_what_is_spent(clock: FakeClock) -> None:
    clock.now = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
    costs = CostDashboard(clock=clock)
    amounts = [1, 5, 0, 2, 9, 0, 0, 4, 1, 2]
    for amount in amounts:
        if amount:
            costs.record(ALICE, "c", "m", Decimal(amount))
        clock.now += HOUR
    projection = view(costs)["projections"]
    observed, left = len(amounts), 240 - len(amounts)
    rate = sum(amounts) / observed
    squares = sum((amount - rate) ** 2 for amount in amounts)
    deviation = math.sqrt(squares / observed * (left + left**2 / observed))
    assert projection["expected_usd"] == pytest.approx(24 + rate * left)
    assert projection["high_usd"] == pytest.approx(24 + rate * left + 1.28 * deviation)
    assert projection["low_usd"] == pytest.approx(24 + rate * left - 1.28 * deviation)
    rare = CostDashboard(clock=clock)
    rare.record(ALICE, "c", "m", Decimal(3))
    clock.now += 5 * HOUR
    assert view(rare)["projections"]["low_usd"] == 3.0


def test_only_the_last_week_is_current_usage(clock: FakeClock) -> None:
    clock.now = datetime(2026, 11, 2, tzinfo=UTC).timestamp()
    costs = CostDashboard(clock=clock)
    costs.record(ALICE, "c", "m", Decimal(100))
    clock.now += 7 * 24 * HOUR
    assert view(costs)["projections"]["expected_usd"] > 200
    clock.now += HOUR
    projection = view(costs)["projections"]
    assert (projection["expected_usd"], projection["observed_hours"]) == (100.0, 168.0)


# ---------------------------------------------------------------- budget


@pytest.mark.parametrize(
    ("budget", "spent", "status", "percent", "drawn"),
    [
        (None, "1", "no budget", None, "no budget is set"),
        ("0", "0", "ok", 0.0, "[--------------------] 0 % ok"),
        ("0", "0.01", "over", None, "[####################] of nothing over"),
        ("10", "4", "ok", 40.0, "[########------------] 40 % ok"),
        ("10", "6.6666", "ok", 66.7, "[#############-------] 67 % ok"),
        ("10", "7.99", "ok", 79.9, "[###############-----] 80 % ok"),
        ("10", "8", "warning", 80.0, "[################----] 80 % warning"),
        ("10", "10", "warning", 100.0, "[####################] 100 % warning"),
        ("10", "10.000001", "over", 100.0, "[####################] 100 % over"),
        ("10", "25", "over", 250.0, "[####################] 250 % over"),
    ],
)
def test_edge_the_budget_from_none_to_far_over(
    budget: str | None, spent: str, status: str, percent: float | None, drawn: str, clock: FakeClock
) -> None:
    costs = CostDashboard(monthly_budget_usd=None if budget is None else Decimal(budget), clock=clock)
    costs.record(ALICE, "c", "m", Decimal(spent))
    found = view(costs)["budget_status"]
    assert (found["status"], found["percent"], found["bar"]) == (status, percent, drawn)
    assert found["spent_usd"] == float(spent)
    if budget is not None:
        assert found["remaining_usd"] == pytest.approx(float(budget) - float(spent))


def test_the_pace_is_one_when_share_and_time_agree(clock: FakeClock) -> None:
    clock.now = datetime(2026, 11, 16, tzinfo=UTC).timestamp()  # half of November
    costs = CostDashboard(monthly_budget_usd=Decimal(10), clock=clock)
    costs.record(ALICE, "c", "m", Decimal(5))
    assert view(costs)["budget_status"]["pace"] == 1.0
    costs.record(ALICE, "c", "m", Decimal(1) / 3)
    assert view(costs)["budget_status"]["pace"] == 1.07
    clock.now = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert view(costs)["budget_status"]["pace"] is None, "at the month's first second nothing can be said"
    assert view(costs)["budget_status"]["spent_usd"] == 0.0
    assert view(costs)["budget_status"]["month"] == "2026-12"


def test_values_do_not_change() -> None:
    for value, name in ((Month.of(NOON), "start"), (CostSettings(), "path")):
        with pytest.raises(AttributeError):
            setattr(value, name, 0)


def test_bars_are_of_equal_length() -> None:
    assert {len(bar(share / 100, "").partition("]")[0]) for share in range(0, 300, 7)} == {21}
    assert bar(math.inf, "over").startswith("[####################]")


@pytest.mark.parametrize("budget", ["-0.01", "1000000000"])
def test_edge_a_budget_that_cannot_be_is_refused(budget: str) -> None:
    with pytest.raises(ValueError, match="monthly_budget_usd"):
        CostDashboard(monthly_budget_usd=Decimal(budget))


def test_a_reservation_holds_until_it_is_settled(costs: CostDashboard) -> None:
    first = costs.reserve(Decimal(6))
    with pytest.raises(OverBudget, match=r"4\.000000") as caught:
        costs.reserve(Decimal("4.000001"))
    assert (caught.value.needed_usd, caught.value.left_usd) == (4.000001, 4.0)
    second = costs.reserve(Decimal(4))
    costs.settle(second)
    costs.record(ALICE, "c", "m", Decimal(1))
    costs.settle(first)
    costs.settle(first)
    costs.settle("never given out")
    costs.settle(costs.reserve(Decimal(9)))
    with pytest.raises(OverBudget):
        costs.reserve(Decimal("9.000000001"))


def test_the_first_call_of_a_month_is_paid_from_its_budget(costs: CostDashboard, clock: FakeClock) -> None:
    costs.record(ALICE, "c", "m", Decimal(3))
    clock.now = Month.of(NOON).end
    costs.record(ALICE, "c", "m", Decimal(4))
    with pytest.raises(OverBudget, match=r"\$6\.000000 of this month"):
        costs.reserve(Decimal(7))


def test_a_new_month_has_its_own_budget(costs: CostDashboard, clock: FakeClock) -> None:
    costs.record(ALICE, "c", "m", Decimal(10))
    for _ in range(2):
        with pytest.raises(OverBudget, match=r"\$0\.000000 of this month") as caught:
            costs.reserve(Decimal("0.01"))
        assert caught.value.left_usd == 0.0
        costs.record(ALICE, "c", "m", Decimal(1))
    clock.now = Month.of(NOON).end - 1
    with pytest.raises(OverBudget):
        costs.reserve(Decimal("0.01"))
    clock.now += 1
    costs.reserve(Decimal(10))


def test_without_a_budget_everything_may_be_reserved() -> None:
    costs = CostDashboard()
    costs.settle(costs.reserve(Decimal(1_000_000)))


def test_abuse_parallel_threads_never_reserve_more_than_there_is(costs: CostDashboard) -> None:
    def attempt(_: int) -> int:
        try:
            costs.reserve(Decimal(1))
        except OverBudget:
            return 0
        return 1

    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(attempt, range(200))) == 10


# ---------------------------------------------------------------- storage


def test_it_survives_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    path = str(tmp_path / "costs.sqlite3")
    for _ in range(2):
        costs = CostDashboard(path, monthly_budget_usd=Decimal(10), clock=clock)
        costs.record(ALICE, "c", "m", Decimal(2), tokens=5)
        costs.close()
    costs = CostDashboard(path, monthly_budget_usd=Decimal(10), clock=clock)
    board = view(costs)
    assert board["spending_by_model"]["models"][0] == {
        "model": "m", "cost_usd": 4.0, "calls": 2, "unpriced_calls": 0, "tokens": 10,
    }  # fmt: skip
    with pytest.raises(OverBudget):
        costs.reserve(Decimal("6.1"))
    costs.close()
    assert files_in(tmp_path) == ["costs.sqlite3"]


def test_two_processes_may_share_the_file(tmp_path: Path, clock: FakeClock) -> None:
    path = str(tmp_path / "costs.sqlite3")
    one, other = CostDashboard(path, clock=clock), CostDashboard(path, clock=clock)
    one.record(ALICE, "c", "m", Decimal(1))
    other.record(ALICE, "c", "m", None)
    one.flush()
    assert view(other)["spending_by_model"]["models"][0]["calls"] == 2
    assert view(one)["spending_by_model"]["unpriced_calls"] == 1
    one.close()
    other.close()


def test_records_are_written_in_batches(tmp_path: Path, clock: FakeClock) -> None:
    path = str(tmp_path / "costs.sqlite3")
    costs = CostDashboard(path, clock=clock)

    def written() -> int:
        with sqlite3.connect(path) as db:
            found = db.execute("SELECT coalesce(sum(calls), 0) FROM models").fetchone()[0]
        db.close()
        return int(found)

    for _ in range(BATCH - 1):
        costs.record(ALICE, "c", "m", Decimal(0))
    assert written() == 0
    costs.record(ALICE, "c", "m", Decimal(0))
    assert written() == BATCH == 1000
    costs.record(ALICE, "c", "m", Decimal(0))
    costs.flush()
    costs.flush()
    assert written() == BATCH + 1
    costs.close()


def test_failure_records_wait_while_the_file_cannot_be_written(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    costs = CostDashboard(str(tmp_path / "costs.sqlite3"), clock=clock)
    costs._db.execute("ALTER TABLE models RENAME TO elsewhere")
    for _ in range(BATCH):
        costs.record(ALICE, "c", "m", Decimal("0.001"))
    assert f"{BATCH} records wait" in caplog.text
    with pytest.raises(sqlite3.Error):
        costs.flush()
    costs._db.execute("ALTER TABLE elsewhere RENAME TO models")
    board = view(costs)
    assert board["spending_by_model"]["total_usd"] == board["hourly_spending"]["total_usd"] == 1.0
    costs.close()


def test_what_could_not_be_written_is_written_before_what_came_later(costs: CostDashboard, clock: FakeClock) -> None:
    costs._db.execute("ALTER TABLE models RENAME TO elsewhere")
    costs.record(ALICE, "c", "m", Decimal(1))
    costs.try_to_flush()
    costs._db.execute("ALTER TABLE elsewhere RENAME TO models")
    clock.now += 0.25 * HOUR
    costs.record(ALICE, "c", "m", Decimal(1))
    costs.flush()
    assert costs._rows("SELECT since FROM hours") == [(NOON,)]


def test_a_record_does_not_wait_for_the_disk(costs: CostDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    write = costs._write

    def slow_disk(records: Any) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(costs.record, ALICE, "c", "m", Decimal(2)).result(timeout=5)
        write(records)

    costs.record(ALICE, "c", "m", Decimal(1))
    monkeypatch.setattr(costs, "_write", slow_disk)
    costs.flush()
    monkeypatch.undo()
    assert view(costs)["spending_by_model"]["total_usd"] == 3.0


def test_a_flush_that_comes_after_the_end_finds_nothing_to_do(
    costs: CostDashboard, caplog: pytest.LogCaptureFixture
) -> None:
    costs.record(ALICE, "c", "m", Decimal(1))
    costs.close()
    costs.try_to_flush()
    assert caplog.text == ""


def test_readers_and_a_writer_do_not_block_each_other(tmp_path: Path) -> None:
    costs = CostDashboard(str(tmp_path / "costs.sqlite3"))
    assert costs._rows("PRAGMA journal_mode") == [("wal",)]
    assert costs._rows("PRAGMA synchronous") == [(1,)], (
        "NORMAL: with a WAL the file is never torn, and writes are cheap"
    )
    costs.close()


def test_abuse_threads_lose_nothing(costs: CostDashboard) -> None:
    def work(number: int) -> None:
        for _ in range(500):
            costs.record(ALICE, f"c{number}", "m", Decimal("0.001"))
            costs.flush() if number == 0 else None

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert view(costs)["spending_by_model"]["models"][0]["calls"] == 2000
    assert view(costs)["spending_by_model"]["total_usd"] == 2.0


def test_abuse_names_with_quotes_are_only_names(costs: CostDashboard) -> None:
    costs.record("x' OR 1=1 --", "'; DROP TABLE hours; --", "<script>", Decimal(1))
    assert view(costs, "x' OR 1=1 --")["expensive_conversations"]["labels"] == ["'; DROP TABLE hours; --"]
    assert view(costs, "nobody' OR 1=1 --")["expensive_conversations"]["labels"] == []
    assert NANO == 10**9


# ---------------------------------------------------------------- over HTTP


@pytest.mark.anyio
async def test_the_costs_of_a_caller_come_from_the_usage_and_are_theirs_alone() -> None:
    model = OfflineModel()
    costs = CostDashboard()
    async with serving(create_app(SETTINGS, client=client_of(model), costs=costs)) as http:
        await http.post("/v1/chat", json={"message": "hello", "conversation_id": "c"})
        mine = await http.get("/costs")
        theirs = (await http.get("/costs", headers={"X-API-Key": KEYS[1]})).json()
    assert mine.headers["cache-control"] == "no-store"
    assert mine.headers["vary"] == "Accept"
    board = mine.json()
    row = board["spending_by_model"]["models"][0]
    assert (row["model"], row["calls"]) == ("gpt-4o-mini", 1)
    reply_tokens = 6  # "[stand-in] You said: hello", in words and signs: [ stand - in ] You said : hello
    assert row["tokens"] > reply_tokens
    assert board["expensive_conversations"]["labels"] == ["c"]
    assert row["cost_usd"] == board["hourly_spending"]["series"][0]["data"][-1] > 0
    assert theirs["spending_by_model"]["models"] == []
    assert theirs["budget_status"]["spent_usd"] == 0.0


@pytest.mark.anyio
async def test_the_operator_sees_everybody() -> None:
    about = CostSettings(":memory:", operator=BOB)
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), cost_settings=about)) as http:
        await http.post("/v1/chat", json={"message": "hello", "conversation_id": "c"})
        seen = (await http.get("/costs", headers={"X-API-Key": KEYS[1]})).json()
        mine = (await http.get("/costs")).json()
    assert seen["expensive_conversations"]["conversations"][0]["caller"] == ALICE
    assert "caller" not in mine["expensive_conversations"]["conversations"][0]


@pytest.mark.anyio
async def test_failure_a_call_that_fails_costs_nothing_and_gives_its_reservation_back() -> None:
    model = OfflineModel()
    model.next(Fault(status=500))
    about = CostSettings(":memory:", Decimal("0.02"), hard=True)
    async with serving(create_app(SETTINGS, client=client_of(model), cost_settings=about)) as http:
        assert (await http.post("/v1/chat", json={"message": "hello"})).status_code == 502
        assert (await http.get("/costs")).json()["spending_by_model"]["models"] == []
        assert (await http.post("/v1/chat", json={"message": "hello"})).status_code == 200


@pytest.mark.anyio
async def test_twenty_calls_at_once_never_exceed_a_hard_budget() -> None:
    model = OfflineModel(delay_s=0.05)
    about = CostSettings(":memory:", Decimal("0.0370"), hard=True)  # three times the worst case of a call, and a bit
    async with serving(create_app(SETTINGS, client=client_of(model), cost_settings=about)) as http:
        answers = await asyncio.gather(*(http.post("/v1/chat", json={"message": "hello"}) for _ in range(20)))
        status = (await http.get("/costs")).json()["budget_status"]
    assert Counter(answer.status_code for answer in answers) == {200: 3, 402: 17}
    assert len(model.calls) == 3
    refused = next(answer for answer in answers if answer.status_code == 402)
    assert refused.json()["detail"].startswith("this call may cost up to $0.012230,")
    assert status["spent_usd"] < 0.0370


@pytest.mark.anyio
async def test_a_soft_budget_refuses_nobody() -> None:
    about = CostSettings(":memory:", Decimal(0))
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), cost_settings=about)) as http:
        assert (await http.post("/v1/chat", json={"message": "hello"})).status_code == 200
        assert (await http.get("/costs")).json()["budget_status"]["status"] == "over"


@pytest.mark.anyio
async def test_an_answer_of_an_unlisted_model_is_unpriced() -> None:
    class Renamed(OfflineModel):
        def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
            return super()._completion(body) | {"model": "gpt-4o-mini-2099-01-01"}

    async with serving(create_app(SETTINGS, client=client_of(Renamed()), costs=CostDashboard())) as http:
        await http.post("/v1/chat", json={"message": "hello"})
        models = (await http.get("/costs")).json()["spending_by_model"]
    assert (models["labels"], models["unpriced_calls"], models["total_usd"]) == (["gpt-4o-mini-2099-01-01"], 1, 0.0)


@pytest.mark.anyio
async def test_an_answer_without_usage_is_unpriced() -> None:
    class Silent(OfflineModel):
        def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in super()._completion(body).items() if name != "usage"}

    async with serving(create_app(SETTINGS, client=client_of(Silent()), costs=CostDashboard())) as http:
        await http.post("/v1/chat", json={"message": "hello"})
        models = (await http.get("/costs")).json()["spending_by_model"]["models"]
    assert [(row["unpriced_calls"], row["tokens"], row["cost_usd"]) for row in models] == [(1, 0, 0.0)]


def test_failure_a_hard_budget_for_a_model_without_a_price_does_not_start() -> None:
    unlisted = dataclasses.replace(SETTINGS, model="gpt-9")
    with pytest.raises(SettingsError, match=r"HARD_BUDGET.*gpt-9"):
        create_app(unlisted, cost_settings=CostSettings(":memory:", hard=True))
    create_app(unlisted, cost_settings=CostSettings(":memory:"))


@pytest.mark.anyio
async def test_abuse_the_numbers_need_a_key() -> None:
    async with serving(create_app(SETTINGS, costs=CostDashboard()), key=None) as http:
        for headers in ({}, {"X-API-Key": "wrong"}, BROWSER | {"X-API-Key": "wrong"}):
            assert (await http.get("/costs", headers=headers)).status_code == 401
        assert (await http.post("/v1/chat", json={"message": "hello"})).status_code == 401


@pytest.mark.anyio
async def test_a_browser_gets_a_page_that_carries_no_numbers_and_runs_only_its_own_script() -> None:
    async with serving(create_app(SETTINGS, costs=CostDashboard()), key=None) as http:
        page = await http.get("/costs", headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "Accept"
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == "'none'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        text = page.text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert text
        assert policy[rule] == f"'sha256-{digest}'"
    assert policy["connect-src"] == "'self'"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_the_page_is_self_contained_and_reads_without_colour() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert strict_policy(page).count("'sha256-") == 2
    assert not re.search(r"https?:|src=|href=|\son\w+=|style=|@import|url\(|innerHTML|eval\(|localStorage|cookie", page)
    assert page.count("<script>") == page.count("<style>") == page.count("<h1>") == 1
    for needed in ('lang="en"', 'name="viewport"', 'role="status"', "<caption>", 'name.scope = "row"', "<label>"):
        assert needed in page


@pytest.mark.anyio
async def test_the_app_starts_twice_and_keeps_its_file(tmp_path: Path) -> None:
    about = CostSettings(str(tmp_path / "costs.sqlite3"))
    app = create_app(SETTINGS, client=client_of(OfflineModel()), cost_settings=about)
    for calls in (1, 2):
        async with serving(app) as http:
            await http.post("/v1/chat", json={"message": "hello"})
            models = (await http.get("/costs")).json()["spending_by_model"]["models"]
        assert models[0]["calls"] == calls
        assert files_in(tmp_path) == ["costs.sqlite3"], "it was closed: no log is left beside it"


@pytest.mark.anyio
async def test_a_given_dashboard_is_written_at_the_end_and_left_open(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite3"
    costs = CostDashboard(str(path))
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), costs=costs)) as http:
        await http.post("/v1/chat", json={"message": "hello"})
    await asyncio.sleep(0)  # what was cancelled ends
    assert not [task for task in asyncio.all_tasks() if "flush_now_and_then" in repr(task)]
    db = sqlite3.connect(path)
    assert db.execute("SELECT sum(calls) FROM models").fetchone() == (1,)
    db.close()
    costs.record(ALICE, "c", "m", Decimal(1))
    costs.close()


@pytest.mark.anyio
async def test_nothing_is_written_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = CostDashboard()
    flushes: list[int] = []
    monkeypatch.setattr(costs, "try_to_flush", lambda: flushes.append(1))
    monkeypatch.setattr("exercise_3_19_6_solution.FLUSH_S", 60)
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), costs=costs)) as http:
        for _ in range(3):
            await http.post("/v1/chat", json={"message": "hello"})
    assert flushes == []
    assert FLUSH_S == 1.0, "the docstring says what a crash may lose"


@pytest.mark.anyio
async def test_what_is_recorded_is_written_soon_without_anybody_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exercise_3_19_6_solution.FLUSH_S", 0.001)
    path = tmp_path / "costs.sqlite3"

    def written() -> int:
        db = sqlite3.connect(path)
        calls = db.execute("SELECT coalesce(sum(calls), 0) FROM models").fetchone()[0]
        db.close()
        return int(calls)

    about = CostSettings(str(path))
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), cost_settings=about)) as http:
        for calls in (1, 2):
            await http.post("/v1/chat", json={"message": "hello"})
            async with asyncio.timeout(5):
                while written() < calls:  # noqa: ASYNC110  (a write to a file sets no event)
                    await asyncio.sleep(0.001)


def test_the_settings_are_read_from_the_environment(environment: Any) -> None:
    assert CostSettings.load() == CostSettings("costs.sqlite3", Decimal(25), False, None)
    environment(COSTS_DB=":memory:", MONTHLY_BUDGET_USD="0.50", HARD_BUDGET="yes", OPERATOR_KEY=KEYS[1])
    assert CostSettings.load() == CostSettings(":memory:", Decimal("0.50"), True, BOB)
    environment(MONTHLY_BUDGET_USD="none")
    assert CostSettings.load().monthly_budget_usd is None
    environment(MONTHLY_BUDGET_USD="0")
    assert CostSettings.load().monthly_budget_usd == 0
    for wrong in ("lots", "-1", "nan", "inf", "1000000000"):
        environment(MONTHLY_BUDGET_USD=wrong)
        with pytest.raises(SettingsError, match="MONTHLY_BUDGET_USD"):
            CostSettings.load()


def test_the_script_prints_what_a_caller_and_what_the_operator_sees(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "what one caller sees" in out
    assert re.search(r"budget +\[#+-+\] \d+ % ok", out)
    assert out.count(" of caller-") == 4
    assert "6 calls" in out
