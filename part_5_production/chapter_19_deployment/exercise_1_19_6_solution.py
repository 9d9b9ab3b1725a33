"""Exercise 1 (19.6): send easy questions to a cheap model, hard ones to a strong one, and count what that saves.

The book asks for three tiers, a log line with model and reason, and the savings against always using the big model.
Notice:

* What a message asks for counts, not how long it is: "Prove that pi is irrational" is short, a chatty look-up long.
  The first word of substance in each clause tells the task; code, conditions, numbers and subject words add to it.
  message_signals.py reads a message so; its words, by concept, are in message_words.toml: add those of your trade.
* Whole words only: "hi" is in "this". A quoted or pasted text is material, not an instruction.
* A message about which nothing is known goes up, not down: a poor answer costs more than a few cents.
* Savings come from the reply's own `usage`, priced per direction. With a flat token count per request they look far
  better than they are, because hard questions have the long answers; and savings mean nothing without the errors beside
  them: how much hard work was sent to a model that is too weak?

Run it:    python exercise_1_19_6_solution.py             (--serve keeps it up)
Check it:  make check EX=19.6.1                           (MINE=your_file.py checks yours)

Limit: it reads words, most of them English, and no meaning. Measure it on your own log, then move it with `calibrate`.
"""

import contextlib
import itertools
import json
import logging
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from message_signals import read
from shared import demo, pricing
from shared.agent import ModelError, Reply, ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Quality", "Routed", "SmartModelRouter", "measure"]

TIERS = ("simple", "medium", "complex")
MEDIUM_FROM, COMPLEX_FROM = 1.5, 2.8  # points; see `measure` and `calibrate`
FLAT_TOKENS = (250, 250, 0)  # in, out, cached: what a flat count assumes for each request
REMEMBERED = 1_000  # routed requests, for the table
WORTHLESS_RETRY = ("model_key_refused", "model_request_refused")  # another model would refuse it as well
LABELLED = Path(__file__).resolve().parents[2] / "tests" / "data" / "routing_messages.jsonl"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Route:
    """Where one message goes, and why."""

    tier: str
    model: str
    reason: str


@dataclass(frozen=True)
class Routed:
    """One answered request: its route, who answered in the end, its cost beside the baseline's (None: unpriced)."""

    route: Route
    model: str
    cost_usd: Decimal | None
    baseline_usd: Decimal | None


class SmartModelRouter:
    """Picks a model for each message and adds up what was spent, and what the baseline would have cost.

    `cost_usd(model, input_tokens, output_tokens, cached_tokens)` prices one call and raises KeyError for a model that
    it does not know; such a call is counted as unpriced. The baseline is priced with the same tokens: what the larger
    model would have written nobody knows. Counters and the last REMEMBERED requests are all that is kept.
    """

    MODELS: Mapping[str, Mapping[str, str]] = MappingProxyType(
        {
            "simple": MappingProxyType({"name": "gpt-4o-mini"}),
            "medium": MappingProxyType({"name": "gpt-4o"}),
            "complex": MappingProxyType({"name": "gpt-4-turbo"}),
        }
    )

    def __init__(
        self,
        *,
        cost_usd: Callable[[str, int, int, int], Decimal] | None = None,
        models: Mapping[str, str] | None = None,
        baseline: str | None = None,
        medium_from: float = MEDIUM_FROM,
        complex_from: float = COMPLEX_FROM,
    ) -> None:
        self.models = {tier: (models or {}).get(tier, self.MODELS[tier]["name"]) for tier in TIERS}
        self.baseline = baseline or self.models["complex"]
        self.medium_from, self.complex_from = medium_from, complex_from
        self._cost_usd = cost_usd
        self.recent: deque[Routed] = deque(maxlen=REMEMBERED)
        self._tiers: Counter[str] = Counter()
        self._spent: dict[str, Decimal] = {}
        self._actual, self._baseline, self._flat_actual, self._flat_baseline = (Decimal(0) for _ in range(4))
        self._unpriced = self._retried = 0

    def classify_complexity(self, message: str) -> tuple[str, str]:
        """Return ("simple", "medium" or "complex", the signals with their points)."""
        signals = read(message)
        score = sum([points for _, points in signals])
        return self._tier(score), f"{score:.1f} points: {', '.join(map(str, signals))}"

    def route(self, message: str) -> Route:
        """Return the model for a message, with the reason."""
        tier, reason = self.classify_complexity(message)
        return Route(tier, self.models[tier], reason)

    def one_up(self, tier: str) -> str | None:
        """Return the next stronger tier, None from the strongest."""
        return dict(itertools.pairwise(TIERS)).get(tier)

    def record(self, route: Route, tier: str, model: str, tokens: tuple[int, int, int] | None) -> Routed:
        """Count one answer of `model` on `tier`, which is another than the route's when that failed.

        `tokens` are input, output and the cached part of the input; None when the API did not say.
        """
        cost, baseline = self._price(model, tokens), self._price(self.baseline, tokens)
        self._tiers[route.tier] += 1
        self._retried += tier != route.tier
        if cost is None or baseline is None:
            self._unpriced += 1
        else:
            self._actual += cost
            self._baseline += baseline
            self._spent[model] = self._spent.get(model, Decimal(0)) + cost
            self._flat_actual += self._price(model, FLAT_TOKENS) or 0
            self._flat_baseline += self._price(self.baseline, FLAT_TOKENS) or 0
        routed = Routed(route, model, cost, baseline)
        self.recent.append(routed)
        return routed

    def get_savings_report(self) -> dict[str, Any]:
        """Return requests by tier, actual and baseline cost in USD, and savings; do not believe `flat_...`."""
        return {
            "baseline_model": self.baseline,
            "requests": self._tiers.total(),
            "requests_by_tier": {tier: self._tiers[tier] for tier in TIERS},
            "cost_by_model_usd": {model: float(cost) for model, cost in self._spent.items()},
            "actual_cost_usd": float(self._actual),
            "baseline_cost_usd": float(self._baseline),
            "savings_usd": float(self._baseline - self._actual),
            "savings_percent": _percent(self._actual, self._baseline),
            "flat_savings_percent": _percent(self._flat_actual, self._flat_baseline),
            "retried_one_tier_up": self._retried,
            "unpriced_requests": self._unpriced,
        }

    def calibrate(
        self,
        messages: Iterable[str],
        *,
        complex_share: float = 1.0,
        usd_each: float | None = None,
        tokens: Mapping[str, tuple[int, int, int]] | None = None,
    ) -> float:
        """Set the complex threshold as low as your own log allows; returns it.

        At most `complex_share` of the messages will go to the complex tier, and with `usd_each` a message costs no more
        than that on average, at the `tokens` (in, out, cached) that your log shows for each tier. What is cheap enough
        is for you to say; what it does to the answers, `measure` says. Raises ValueError where no threshold will do.
        """
        scores = [sum(signal.points for signal in read(message)) for message in messages]
        if not scores or not 0 <= complex_share <= 1:
            raise ValueError("calibrate needs messages, and a complex_share between 0 and 1")
        prices = {}
        if usd_each is not None:
            prices = {tier: self._price(self.models[tier], (tokens or {}).get(tier)) for tier in TIERS}
            if None in prices.values():
                raise ValueError("usd_each needs a price and tokens for each tier")
        simple = sum(score < self.medium_from for score in scores)
        for threshold in sorted({self.medium_from, *scores, max(scores) + 0.1}):
            if threshold < self.medium_from:
                continue
            hard = sum(score >= threshold for score in scores)
            counts = {"simple": simple, "medium": len(scores) - simple - hard, "complex": hard}
            cost = sum(counts[tier] * (price or 0) for tier, price in prices.items()) / len(scores)
            if hard <= complex_share * len(scores) and (usd_each is None or cost <= usd_each):
                self.complex_from = threshold
                return threshold
        raise ValueError("even without the complex tier a message costs more than that")

    def _tier(self, score: float) -> str:
        return "complex" if score >= self.complex_from else "medium" if score >= self.medium_from else "simple"

    def _price(self, model: str, tokens: tuple[int, int, int] | None) -> Decimal | None:
        if self._cost_usd is None or tokens is None:
            return None
        try:
            return self._cost_usd(model, *tokens)
        except KeyError:
            return None


def _percent(actual: Decimal, baseline: Decimal) -> float:
    return round(float(100 * (1 - actual / baseline)), 1) if baseline else 0.0


@dataclass(frozen=True)
class Quality:
    """How right a router is on labelled messages; shares from 0 to 1."""

    messages: int
    macro_f1: float
    accuracy: float
    under_routed: float  # of the complex ones, sent lower
    over_routed: float  # of the simple ones, sent higher


def measure(router: SmartModelRouter, labelled: Iterable[tuple[str, str]]) -> Quality:
    """Compare the router with labels, pairs of (tier, message)."""
    pairs = [(tier, router.classify_complexity(message)[0]) for tier, message in labelled]
    of, to, right = Counter(a for a, _ in pairs), Counter(b for _, b in pairs), Counter(a for a, b in pairs if a == b)
    f1 = [2 * right[tier] / ((of[tier] + to[tier]) or 1) for tier in TIERS]
    return Quality(
        messages=len(pairs),
        macro_f1=sum(f1) / len(TIERS),
        accuracy=right.total() / (len(pairs) or 1),
        under_routed=1 - right["complex"] / (of["complex"] or 1) if of["complex"] else 0.0,
        over_routed=1 - right["simple"] / (of["simple"] or 1) if of["simple"] else 0.0,
    )


class RoutedResponse(ChatResponse):
    """An answer, and who gave it: the tier of the reason, or the next stronger one when that failed."""

    tier: str
    model: str
    reason: str
    cost_usd: float | None


@contextlib.asynccontextmanager
async def logged(_: FastAPI) -> AsyncIterator[None]:
    """Write this file's log lines to standard error while the app runs: by default Python drops what is only INFO."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, router: SmartModelRouter | None = None
) -> FastAPI:
    """Wire the router before the agent; a tier that fails is retried one tier up, and `/v1/savings` reports."""
    router = SmartModelRouter(cost_usd=pricing.cost_usd) if router is None else router
    app = base_app(settings, client, lifespan=logged)

    async def answer(request: Request, message: str, conversation_id: str, tier: str) -> tuple[str, Reply]:
        """Return the tier that answered in the end, and its answer."""
        try:
            work = ask(request.app.state.agent, message, conversation_id, model=router.models[tier])
            return tier, await unless_gone(request, work)
        except ModelError as error:
            stronger = router.one_up(tier)
            if stronger is None or error.code in WORTHLESS_RETRY:
                raise
            log.warning("%s failed (%s): retrying with %s", router.models[tier], error.code, router.models[stronger])
        return await answer(request, message, conversation_id, stronger)

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> RoutedResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        route = router.route(body.message)
        log.info("model=%s tier=%s reason=%s", route.model, route.tier, json.dumps(route.reason))
        tier, reply = await answer(request, body.message, f"{caller}/{conversation_id}", route.tier)
        used = reply.usage
        tokens = (used.input_tokens, used.output_tokens, used.cached_tokens) if used else None
        routed = router.record(route, tier, reply.model, tokens)
        return RoutedResponse(
            response=reply.text,
            conversation_id=conversation_id,
            tier=tier,
            model=reply.model,
            reason=route.reason,
            cost_usd=None if routed.cost_usd is None else float(routed.cost_usd),
        )

    @app.get("/v1/savings")
    async def savings(caller: Caller) -> dict[str, Any]:
        return router.get_savings_report()

    return app


def main(argv: list[str] | None = None) -> int:
    """Route twenty messages, print the table, and the savings beside the errors."""
    varied = (
        "hello",
        "What is the capital of Mongolia?",
        "What is 17 * 23?",
        "Who designed the Sydney Opera House?",
        "Translate 'good morning' into Italian.",
        "Is a tomato a fruit?",
        "thanks, bye",
        "Explain how photosynthesis works to a ten year old.",
        "Write a short email to my landlord about a leaking tap.",
        "What is the difference between TCP and UDP?",
        "write a python function that reverses a string",
        "Summarise the plot of Hamlet in one paragraph.",
        "Why is the sky blue?",
        "Give me a recipe for vegetarian lasagna for four people",
        "Prove that there are infinitely many prime numbers.",
        "Design a distributed rate limiter that works across three regions.",
        "Debug this:\n```python\ndef mean(xs):\n    return sum(xs) / len(xs - 1)\n```",
        "Plan 10 days in Japan for four people with 5000 dollars: no flights, two vegetarians, at most three hotels.",
        "Analyse the trade-offs between eventual and strong consistency for a shopping cart.",
        "Our service leaks memory under load. Where do I look, and how do I fix it without a restart?",
    )
    router = SmartModelRouter(cost_usd=pricing.cost_usd)
    steps = [demo.Send("POST", "/v1/chat", {"message": message}, quiet=True) for message in varied]
    status = demo.run(__doc__, partial(create_app, router=router), steps, argv)
    if not router.recent:
        return status
    print(f"\n{'message':42} {'tier':8} {'cost USD':>10} {'baseline':>10}  reason")
    for message, routed in zip(varied, router.recent, strict=True):
        usd = (routed.cost_usd, routed.baseline_usd)
        cost, baseline = ("  unpriced" if amount is None else f"{amount:10.6f}" for amount in usd)
        asked = " ".join(message.split())[:42]
        print(f"{asked:42} {routed.route.tier:8} {cost} {baseline}  {routed.route.reason[:70]}")
    report = router.get_savings_report()
    baseline, flat = report["baseline_model"], report["flat_savings_percent"]
    print(f"\nsavings: {report['savings_percent']} % of what {baseline} would have cost with the same tokens")
    print(f"         a flat count per request would claim {flat} %: it flatters, hard requests have the long answers")
    if LABELLED.exists():
        rows = map(json.loads, LABELLED.read_text(encoding="utf-8").splitlines())
        quality = measure(router, ((row["tier"], row["message"]) for row in rows))
        print(f"errors:  on {quality.messages} labelled messages macro-F1 is {quality.macro_f1:.2f}")
        print(f"         under-routed (complex sent lower) {quality.under_routed:.1%}")
        print(f"         over-routed (simple sent higher)  {quality.over_routed:.1%}")
        print("         most were seen while the rules were made: on unseen ones expect less, and measure your own")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
