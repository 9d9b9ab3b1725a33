"""Exercise 3 (19.6): show at /costs what is spent: by hour, by model, by conversation, this month, against a budget.

The book asks for five views of the same money as JSON that a chart can draw. Notice:

* Money is counted in whole nano-dollars: a token of gpt-4o-mini costs 150, so nothing is rounded away, and the hours,
  the models and the conversations add up to exactly the same total. Floats would drift, cents would show nothing.
* Nobody adds up a million records to answer: a record is put down in a microsecond, and batches of them are added to
  three running totals in SQLite. A page costs the same on the first day as after a year.
* A model without a price counts as unpriced and never as a guess. Cached tokens are a part of the input and reasoning
  tokens of the output; neither is counted again.
* A projection is a range, and under an hour of data it is none. The current hour is marked as not over yet.
* A budget that is only looked at afterwards stops nobody: with HARD_BUDGET=1 each call reserves its worst case first,
  so calls that run at the same moment cannot spend the same dollar.

Run it:    python exercise_3_19_6_solution.py             (--serve keeps it up; open /costs in a browser)
Check it:  make check EX=19.6.3                           (MINE=your_file.py checks yours)

Limit: a crash loses up to a second of records; processes may share the file, but a hard budget holds within one only.
"""

import asyncio
import base64
import calendar
import contextlib
import hashlib
import logging
import math
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo, pricing
from shared.agent import ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, caller_id, require_api_key, unless_gone
from shared.config import TRUE, Settings, SettingsError, environment

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["CostDashboard", "OverBudget"]

NANO = 1_000_000_000  # nano-dollars in a dollar; every listed price is a whole number of them per token
HOUR_S = 3600
BATCH = 1000  # records between two writes, at most; a batch takes some milliseconds
FLUSH_S = 1.0  # and as long as a record waits for its write
OBSERVED_HOURS = 7 * 24  # "current usage" is that of the last week
WIDTH_80 = 1.28  # standard deviations on either side that hold 80 % of a normal distribution
WARN_PERCENT = 80.0
BAR_CELLS = 20
WORST_TOKENS = (16_000, 16_384)  # in, out: what one call of gpt-4o-mini is taken to need at the most
PAGE = Path(__file__).with_name("exercise_3_19_6_dashboard.html")
SCHEMA = """
CREATE TABLE IF NOT EXISTS hours (caller TEXT, hour INTEGER, nano INTEGER, since REAL,
    PRIMARY KEY (caller, hour)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS hours_of_all ON hours (hour);
CREATE TABLE IF NOT EXISTS models (caller TEXT, model TEXT, nano INTEGER, calls INTEGER, unpriced INTEGER,
    tokens INTEGER, PRIMARY KEY (caller, model)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS conversations (caller TEXT, conversation TEXT, nano INTEGER, calls INTEGER,
    PRIMARY KEY (caller, conversation));
CREATE INDEX IF NOT EXISTS expensive ON conversations (caller, nano DESC);
CREATE INDEX IF NOT EXISTS expensive_of_all ON conversations (nano DESC);
"""
ADD_HOUR = """INSERT INTO hours AS o VALUES (?, ?, ?, ?) ON CONFLICT (caller, hour) DO UPDATE SET
    nano = o.nano + excluded.nano,
    since = CASE WHEN o.since < excluded.since THEN o.since ELSE excluded.since END"""
ADD_MODEL = """INSERT INTO models AS o VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (caller, model) DO UPDATE SET
    nano = o.nano + excluded.nano, calls = o.calls + excluded.calls, unpriced = o.unpriced + excluded.unpriced,
    tokens = o.tokens + excluded.tokens"""
ADD_CONVERSATION = """INSERT INTO conversations AS o VALUES (?, ?, ?, ?) ON CONFLICT (caller, conversation)
    DO UPDATE SET nano = o.nano + excluded.nano, calls = o.calls + excluded.calls"""

T = TypeVar("T")
# when, caller, conversation, model, nano-dollars, unpriced, tokens
Record = tuple[float, str, str, str, int, bool, int]
log = logging.getLogger(__name__)


class OverBudget(Exception):
    """The month's budget does not allow this call."""

    def __init__(self, needed_usd: float, left_usd: float) -> None:
        self.needed_usd, self.left_usd = needed_usd, left_usd
        super().__init__(
            f"this call may cost up to ${needed_usd:.6f}, and ${left_usd:.6f} of this month's budget is left"
        )


@dataclass(frozen=True)
class Month:
    """A calendar month in UTC: its first second, the first one after it."""

    start: float
    end: float

    @classmethod
    def of(cls, now: float) -> "Month":
        """Return the month that holds `now`."""
        day = datetime.fromtimestamp(now, UTC)
        start = datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()
        return cls(start, start + calendar.monthrange(day.year, day.month)[1] * 24 * HOUR_S)


class CostDashboard:
    """Counts what calls cost and shows it in five views; `path` is a SQLite file, or ":memory:".

    `caller=None` in a view means all callers together: for the operator. All views reckon in UTC. Totals by model and
    by conversation go back to the first record, so hours + `earlier_usd` = models = conversations, to the last digit.
    Safe to use from several threads. Conversations take room on disk, one row each, and none in memory.
    """

    def __init__(
        self,
        path: str = ":memory:",
        *,
        monthly_budget_usd: Decimal | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if monthly_budget_usd is not None and not 0 <= monthly_budget_usd < NANO:
            raise ValueError("monthly_budget_usd must not be negative, and below a billion")
        self._budget = None if monthly_budget_usd is None else _nano(monthly_budget_usd)
        self._clock = clock
        self._lock = threading.Lock()  # guards the numbers in memory, and is never held while the disk is busy
        self._storage = threading.RLock()  # guards the file; whoever needs both takes this one first
        self._db = self._open(path)
        self._waiting: list[Record] = []
        self._month = Month.of(clock())
        self._month_nano = self._spent(None, self._month)
        self._reserved: dict[str, int] = {}

    def _open(self, path: str) -> Any:
        """Connect and make the tables; the queries are plain SQL, so another engine is another `_open`."""
        db = sqlite3.connect(path, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(SCHEMA)
        return db

    def record(self, caller: str, conversation: str, model: str, cost_usd: Decimal | None, *, tokens: int = 0) -> None:
        """Count one call, to a chat model or for an embedding; a `cost_usd` of None counts as unpriced."""
        now = self._clock()
        nano = 0 if cost_usd is None else _nano(cost_usd)
        with self._lock:
            self._waiting.append((now, caller, conversation, model, nano, cost_usd is None, tokens))
            full = len(self._waiting) % BATCH == 0
            self._turn_month(now)
            self._month_nano += nano
        if full:
            self.try_to_flush()

    def flush(self) -> None:
        """Write what has been recorded since the last time, in one transaction; what cannot be written waits on."""
        with self._storage:
            with self._lock:
                records, self._waiting = self._waiting, []
            if not records:
                return
            try:
                with self._db:
                    self._write(records)
            except BaseException:
                with self._lock:
                    self._waiting = records + self._waiting
                raise

    def _write(self, records: list[Record]) -> None:
        hours: dict[tuple[str, int], list[float]] = {}
        models: dict[tuple[str, str], list[int]] = {}
        conversations: dict[tuple[str, str], list[int]] = {}
        for now, caller, conversation, model, nano, unpriced, tokens in records:
            hour = hours.setdefault((caller, int(now // HOUR_S)), [0, now])
            hour[0] += nano
            by_model = models.setdefault((caller, model), [0, 0, 0, 0])
            by_model[:] = by_model[0] + nano, by_model[1] + 1, by_model[2] + unpriced, by_model[3] + tokens
            by_conversation = conversations.setdefault((caller, conversation), [0, 0])
            by_conversation[:] = by_conversation[0] + nano, by_conversation[1] + 1
        # Sorted: two processes that lock the same rows in another order would wait for each other for ever.
        self._db.executemany(ADD_HOUR, [(*key, *row) for key, row in sorted(hours.items())])
        self._db.executemany(ADD_MODEL, [(*key, *row) for key, row in sorted(models.items())])
        self._db.executemany(ADD_CONVERSATION, [(*key, *row) for key, row in sorted(conversations.items())])

    def try_to_flush(self) -> None:
        """Like `flush`, but a file that cannot be written costs nobody their answer: the records wait in memory."""
        try:
            self.flush()
        except sqlite3.Error:
            log.exception("costs could not be written, %d records wait", len(self._waiting))

    def close(self) -> None:
        """Write the rest and let go of the file."""
        with self._storage:
            self.flush()
            self._db.close()

    def reserve(self, worst_usd: Decimal) -> str:
        """Set the worst case of one call aside and return a ticket for `settle`; raises OverBudget."""
        with self._lock:
            self._turn_month(self._clock())
            needed = _nano(worst_usd)
            if self._budget is not None:
                left = self._budget - self._month_nano - sum(self._reserved.values())
                if needed > left:
                    raise OverBudget(_usd(needed), _usd(max(0, left)))
            ticket = uuid.uuid4().hex
            self._reserved[ticket] = needed
            return ticket

    def settle(self, ticket: str) -> None:
        """Give a reservation back, after `record` has counted the real cost, or after the call has failed."""
        with self._lock:
            self._reserved.pop(ticket, None)

    async def get_full_dashboard(self, caller: str | None = None) -> dict[str, Any]:
        """Return all five views of one moment."""
        return await self._read(
            lambda now: {
                "budget_status": self._budget_status(caller, now),
                "hourly_spending": self._hourly(24, caller, now),
                "spending_by_model": self._by_model(caller),
                "expensive_conversations": self._expensive(10, caller),
                "projections": self._projection(caller, now),
            }
        )

    async def get_budget_status(self, caller: str | None = None) -> dict[str, Any]:
        """Return this month's spending beside the budget; `pace` 1.0 would use it up on the month's last second."""
        return await self._read(lambda now: self._budget_status(caller, now))

    async def get_hourly_spending(self, hours: int = 24, caller: str | None = None) -> dict[str, Any]:
        """Return the last `hours` hours, the oldest first; the last one is not over yet."""
        return await self._read(lambda now: self._hourly(hours, caller, now))

    async def get_spending_by_model(self, caller: str | None = None) -> dict[str, Any]:
        """Return the models, the dearest first."""
        return await self._read(lambda now: self._by_model(caller))

    async def get_expensive_conversations(self, limit: int = 10, caller: str | None = None) -> dict[str, Any]:
        """Return the most expensive conversations, the dearest first."""
        return await self._read(lambda now: self._expensive(limit, caller))

    async def get_projected_monthly(self, caller: str | None = None) -> dict[str, Any]:
        """Return what the month may cost: spent so far, plus the last week's usage over what is left of it."""
        return await self._read(lambda now: self._projection(caller, now))

    async def _read(self, view: Callable[[float], T]) -> T:
        def in_thread() -> T:
            with self._storage:
                self.flush()
                return view(self._clock())

        return await asyncio.to_thread(in_thread)

    def _budget_status(self, caller: str | None, now: float) -> dict[str, Any]:
        month = Month.of(now)
        spent = self._spent(caller, month)
        status: dict[str, Any] = {"month": _label(month.start)[:7], "spent_usd": _usd(spent), "budget_usd": None}
        if self._budget is None:
            return status | {"status": "no budget", "percent": None, "pace": None, "bar": "no budget is set"}
        elapsed = (now - month.start) / (month.end - month.start)
        share = spent / self._budget if self._budget else (math.inf if spent else 0.0)
        percent = round(100 * share, 1) if share < math.inf else None
        word = "over" if spent > self._budget else "warning" if 100 * share >= WARN_PERCENT else "ok"
        return status | {
            "budget_usd": _usd(self._budget),
            "remaining_usd": _usd(self._budget - spent),
            "status": word,
            "percent": percent,
            "pace": round(share / elapsed, 2) if elapsed and share < math.inf else None,
            "bar": bar(share, word),
        }

    def _hourly(self, hours: int, caller: str | None, now: float) -> dict[str, Any]:
        this_hour = int(now // HOUR_S)
        first = this_hour - hours + 1
        where, who = _whose(caller)
        query = "SELECT hour, sum(nano) FROM hours WHERE hour >= ?"
        spent = dict(self._rows(f"{query}{where} GROUP BY hour", first, *who))
        data = [spent.get(hour, 0) for hour in range(first, this_hour + 1)]
        total = self._total(caller)
        return {
            "labels": [_label(hour * HOUR_S) for hour in range(first, this_hour + 1)],
            "series": [{"name": "USD", "data": [_usd(nano) for nano in data]}],
            "partial": _label(this_hour * HOUR_S),
            "total_usd": _usd(sum(data)),
            "earlier_usd": _usd(total - sum(data)),
        }

    def _by_model(self, caller: str | None) -> dict[str, Any]:
        where, who = _whose(caller)
        query = "SELECT model, sum(nano), sum(calls), sum(unpriced), sum(tokens) FROM models WHERE 1 = 1"
        rows = self._rows(f"{query}{where} GROUP BY model ORDER BY 2 DESC, 1", *who)
        return {
            "labels": [row[0] for row in rows],
            "series": [{"name": "USD", "data": [_usd(row[1]) for row in rows]}],
            "models": [
                {"model": model, "cost_usd": _usd(nano), "calls": calls, "unpriced_calls": unpriced, "tokens": tokens}
                for model, nano, calls, unpriced, tokens in rows
            ],
            "total_usd": _usd(sum(row[1] for row in rows)),
            "unpriced_calls": sum(row[3] for row in rows),
        }

    def _expensive(self, limit: int, caller: str | None) -> dict[str, Any]:
        where, who = _whose(caller)
        query = "SELECT caller, conversation, nano, calls FROM conversations WHERE 1 = 1"
        rows = self._rows(f"{query}{where} ORDER BY nano DESC LIMIT ?", *who, limit)
        total = self._total(caller)
        return {
            "labels": [row[1] for row in rows],
            "series": [{"name": "USD", "data": [_usd(row[2]) for row in rows]}],
            "conversations": [
                {"conversation_id": name, "cost_usd": _usd(nano), "calls": calls}
                | ({"caller": owner} if caller is None else {})
                for owner, name, nano, calls in rows
            ],
            "total_usd": _usd(total),
            "others_usd": _usd(total - sum(row[2] for row in rows)),
        }

    def _projection(self, caller: str | None, now: float) -> dict[str, Any]:
        month, this_hour = Month.of(now), int(now // HOUR_S)
        spent = self._spent(caller, month)
        where, who = _whose(caller)
        oldest = this_hour - OBSERVED_HOURS
        query = "SELECT hour, sum(nano), min(since) FROM hours WHERE hour >= ? AND hour <= ?"
        rows = self._rows(f"{query}{where} GROUP BY hour ORDER BY hour", oldest, this_hour, *who)
        query = "SELECT 1 FROM hours WHERE hour < ?"
        known_before = self._rows(f"{query}{where} LIMIT 1", oldest, *who)
        since = oldest * HOUR_S if known_before else rows[0][2] if rows else now
        observed = (now - since) / HOUR_S
        common = {"month": _label(month.start)[:7], "spent_usd": _usd(spent), "observed_hours": round(observed, 2)}
        if observed < 1:
            return common | {"status": "not enough data", "low_usd": None, "expected_usd": None, "high_usd": None}
        left = (month.end - now) / HOUR_S
        rate = sum(row[1] for row in rows) / observed
        # How far single hours stray from their mean; the zeros of hours without a call included.
        squares = sum((row[1] - rate) ** 2 for row in rows) + max(0.0, observed - len(rows)) * rate**2
        deviation = math.sqrt(squares / observed * (left + left**2 / observed))
        return common | {
            "status": "projected",
            "low_usd": _usd(spent + round(max(0.0, rate * left - WIDTH_80 * deviation))),
            "expected_usd": _usd(spent + round(rate * left)),
            "high_usd": _usd(spent + round(rate * left + WIDTH_80 * deviation)),
            "range": "holds 4 of 5 months if usage stays as it was in the observed hours",
        }

    def _spent(self, caller: str | None, month: Month) -> int:
        where, who = _whose(caller)
        hours = (int(month.start // HOUR_S), int(month.end // HOUR_S))
        query = "SELECT coalesce(sum(nano), 0) FROM hours WHERE hour >= ? AND hour < ?"
        return int(self._rows(f"{query}{where}", *hours, *who)[0][0])

    def _total(self, caller: str | None) -> int:
        where, who = _whose(caller)
        query = "SELECT coalesce(sum(nano), 0) FROM models WHERE 1 = 1"
        return int(self._rows(f"{query}{where}", *who)[0][0])

    def _rows(self, query: str, *arguments: Any) -> list[Any]:
        rows: list[Any] = self._db.execute(query, arguments).fetchall()
        return rows

    def _turn_month(self, now: float) -> None:
        if now >= self._month.end:
            self._month, self._month_nano = Month.of(now), 0


def bar(share: float, word: str) -> str:
    """Draw a share of the budget in letters, since colour alone tells some people nothing: `[####------] 40 % ok`."""
    filled = min(BAR_CELLS, int(share * BAR_CELLS)) if share < math.inf else BAR_CELLS
    percent = f"{100 * share:.0f} %" if share < math.inf else "of nothing"
    return f"[{'#' * filled}{'-' * (BAR_CELLS - filled)}] {percent} {word}"


def _whose(caller: str | None) -> tuple[str, tuple[str, ...]]:
    return ("", ()) if caller is None else (" AND caller = ?", (caller,))


def _nano(usd: Decimal) -> int:
    return round(usd * NANO)


def _usd(nano: int) -> float:
    return float(Decimal(nano) / NANO)


def _label(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:00Z")


@dataclass(frozen=True)
class CostSettings:
    """Where the costs are kept, and what they may come to."""

    path: str = "costs.sqlite3"
    monthly_budget_usd: Decimal | None = Decimal(25)
    hard: bool = False
    operator: str | None = None  # the id of the caller who sees everybody's costs

    @classmethod
    def load(cls) -> "CostSettings":
        """Read COSTS_DB, MONTHLY_BUDGET_USD (or "none"), HARD_BUDGET and OPERATOR_KEY (one of the keys in API_KEY)."""
        env = environment()
        budget = env.get("MONTHLY_BUDGET_USD", "").strip() or str(cls.monthly_budget_usd)
        key = env.get("OPERATOR_KEY", "").strip()
        try:
            usd = None if budget.lower() == "none" else Decimal(budget)
            if usd is not None and not 0 <= usd < NANO:
                raise ValueError
        except (ArithmeticError, ValueError):
            raise SettingsError(
                ["MONTHLY_BUDGET_USD must be an amount in dollars, such as 25 or 0.50, or none"]
            ) from None
        hard = env.get("HARD_BUDGET", "").strip().lower() in TRUE
        return cls(env.get("COSTS_DB", "").strip() or cls.path, usd, hard, caller_id(key) if key else None)


def worst_usd(model: str) -> Decimal:
    """Return what one call may cost at the most; raises SettingsError, since without a price no budget can be held."""
    try:
        return pricing.cost_usd(model, *WORST_TOKENS)
    except pricing.UnknownModel as error:
        raise SettingsError([f"HARD_BUDGET needs a price: {error}"]) from error


def strict_policy(page: str) -> str:
    """Return a Content-Security-Policy under which this page's own style and script run, and nothing else."""

    def allowed(tag: str) -> str:
        text = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {allowed('script')}; style-src {allowed('style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def create_app(
    settings: Settings | None = None,
    *,
    client: "AsyncOpenAI | None" = None,
    costs: CostDashboard | None = None,
    cost_settings: CostSettings | None = None,
) -> FastAPI:
    """Count every chat and show it at `/costs`: JSON for a key, a page that asks for one for a browser."""
    about = cost_settings or (CostSettings.load() if costs is None else CostSettings())
    page = PAGE.read_text(encoding="utf-8")
    page_headers = {"Content-Security-Policy": strict_policy(page), "X-Content-Type-Options": "nosniff"}

    @contextlib.asynccontextmanager
    async def counting(app: FastAPI) -> AsyncIterator[None]:
        board = app.state.costs = costs or CostDashboard(about.path, monthly_budget_usd=about.monthly_budget_usd)

        async def flush_now_and_then() -> None:
            while True:
                await asyncio.sleep(FLUSH_S)
                await asyncio.to_thread(board.try_to_flush)

        flushing = asyncio.create_task(flush_now_and_then())
        try:
            yield
        finally:
            flushing.cancel()
            if costs is None:
                board.close()
            else:
                board.flush()

    app = base_app(settings, client, lifespan=counting)
    worst = worst_usd(app.state.settings.model) if about.hard else None

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        board: CostDashboard = request.app.state.costs
        try:
            ticket = board.reserve(worst) if worst is not None else None
        except OverBudget as error:
            raise HTTPException(402, str(error)) from error
        try:
            reply = await unless_gone(
                request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}")
            )
            cost, tokens = None, 0
            if used := reply.usage:
                tokens = used.input_tokens + used.output_tokens
                with contextlib.suppress(pricing.UnknownModel):
                    cost = pricing.cost_usd(reply.model, used.input_tokens, used.output_tokens, used.cached_tokens)
            board.record(caller, conversation_id, reply.model, cost, tokens=tokens)
        finally:
            if ticket:
                board.settle(ticket)
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.get("/costs")
    async def show(request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        if "text/html" in request.headers.get("Accept", "") and "X-API-Key" not in request.headers:
            return HTMLResponse(page, headers=headers | page_headers)
        caller = await require_api_key(request, request.headers.get("X-API-Key"))
        board: CostDashboard = request.app.state.costs
        everybody = caller == about.operator
        return JSONResponse(await board.get_full_dashboard(None if everybody else caller), headers=headers)

    return app


def main(argv: list[str] | None = None) -> int:
    """Chat as two callers, ask for the costs of one, and print all of them."""
    chats = (("trip", "Give me three facts about Lisbon."), ("trip", "And what is 6 * 7?"), ("sum", "What is 1 + 2?"))
    steps = [
        demo.Send("POST", "/v1/chat", {"message": message, "conversation_id": name}, key=key, quiet=True)
        for key in (0, 1)
        for name, message in chats
    ]
    steps.append(demo.Send("GET", "/costs", note="what one caller sees", show=("Cache-Control",)))
    if "--serve" in (sys.argv[1:] if argv is None else argv):
        return demo.run(__doc__, create_app, steps, argv)
    costs = CostDashboard(monthly_budget_usd=Decimal("0.001"))
    status = demo.run(__doc__, partial(create_app, costs=costs), steps, argv)
    board = asyncio.run(costs.get_full_dashboard())
    costs.close()
    print("\nwhat the operator sees")
    print(f"  budget         {board['budget_status']['bar']}, pace {board['budget_status']['pace']}")
    hourly, projection = board["hourly_spending"], board["projections"]
    print(f"  this hour      ${hourly['series'][0]['data'][-1]:.9f} (since {hourly['partial']}, not over yet)")
    for row in board["spending_by_model"]["models"]:
        print(f"  {row['model']:14} ${row['cost_usd']:.9f} for {row['calls']} calls, {row['tokens']} tokens")
    for row in board["expensive_conversations"]["conversations"]:
        print(f"  {row['conversation_id']:14} ${row['cost_usd']:.9f} of {row['caller']}")
    print(f"  this month     {projection['status']}: {projection['observed_hours']} hours observed")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
