"""Exercise 1 (19.6): send easy questions to a cheap model, hard ones to a strong one, and count what that saves.

The book asks for three tiers, a log line with model and reason, and the savings against always using the big model.
Notice:

* What a message asks for counts, not how long it is: "Prove that pi is irrational" is short, a chatty look-up long.
  The first word of substance in each clause tells the task; code, conditions, numbers and subject words add to it.
  The words stand beside this file, by concept, in exercise_1_19_6_words.toml: add those of your own trade.
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
import re
import tomllib
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import FastAPI, Request

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo, pricing
from shared.agent import ModelError, Reply, ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Quality", "Routed", "Signal", "SmartModelRouter", "measure", "read"]

TIERS = ("simple", "medium", "complex")
MEDIUM_FROM, COMPLEX_FROM = 1.5, 2.8  # points; see `measure` and `calibrate`
HEAD, TAIL = 6_000, 2_000  # characters that are read: an instruction stands at the beginning or at the end
FLAT_TOKENS = (250, 250, 0)  # in, out, cached: what a flat count assumes for each request
REMEMBERED = 1_000  # routed requests, for the table
WORTHLESS_RETRY = ("model_key_refused", "model_request_refused")  # another model would refuse it as well
WORDS = Path(__file__).with_name("exercise_1_19_6_words.toml")
LABELLED = Path(__file__).resolve().parents[2] / "tests" / "data" / "routing_messages.jsonl"
log = logging.getLogger(__name__)


class Signal(NamedTuple):
    """One thing that was seen in a message, and the points that it brings."""

    name: str
    points: float

    def __str__(self) -> str:
        return f"{self.name} {self.points:+.1f}"


@dataclass(frozen=True)
class Cue:
    """A concept: each of its words or phrases adds `each` points, together at most `most`."""

    name: str
    each: float
    most: float
    terms: frozenset[str]

    def seen(self, phrases: frozenset[str]) -> Signal:
        """Return the signal of those of its terms that are there."""
        found = self.terms & phrases
        bound = min if self.each > 0 else max
        return Signal(f"{self.name} ({', '.join(sorted(found)[:3])})", bound(self.most, self.each * len(found)))


def _vocabulary() -> tuple[Mapping[str, frozenset[str]], Mapping[str, Cue]]:
    """Return the terms of each concept, verbs in all their forms, and the cues by name."""

    def split(text: str) -> list[str]:
        return [" ".join(term.split()) for term in text.split(",")]

    file = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    terms = {name: set(split(text)) for name, text in file["terms"].items()}
    for name, text in file["verbs"].items():
        for verb in text.replace("ise", "ize").split() + text.split():
            stem = verb.removesuffix("e")
            terms[name] |= {verb, f"{verb}s", f"{stem}ing", f"{stem}ed"}
    cues = {cue["name"]: Cue(**cue | {"terms": frozenset(split(cue["terms"]))}) for cue in file["cues"]}
    return MappingProxyType({name: frozenset(found) for name, found in terms.items()}), MappingProxyType(cues)


TERMS, ALL_CUES = _vocabulary()
HARD, LARGE, LOOSE, PLAIN, LOOK_UP = (TERMS[kind] for kind in ("hard", "large", "loose", "plain", "look_up"))
POLITE, CHAT, GREETINGS, FACTS, FETCH = (TERMS[kind] for kind in ("polite", "chat", "greetings", "facts", "fetch"))
DEFINING, A_THING, MATERIAL = TERMS["defining"], TERMS["a_thing"], TERMS["material"]
SPEAKER, NUMERALS = TERMS["speaker"], TERMS["numerals"]
PUNCTUATION = frozenset(",.;:?!()\n")
JOINTS = TERMS["joints"] | PUNCTUATION  # between clauses
EXPLAIN, BRIEF = ALL_CUES["explanation"], ALL_CUES["brevity"]
CUES = tuple(cue for cue in ALL_CUES.values() if cue not in (EXPLAIN, BRIEF))
CUED = frozenset().union(*(cue.terms for cue in CUES))
TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?|[,.;:?!()\n]")
CODE_LINE = re.compile(
    r"^[ \t]*(?:Traceback |def \w+\(|class \w+[:({]|import \w|from \w+ import|SELECT |#include|public |function \w"
    r"|const \w+ ?=|at \w\S* ?\()|[;{}]$|(?:Error|Exception): ",
    re.MULTILINE,
)
FORMULA = re.compile(  # f(x) = y, n <= 3, o(n log n); not e-mail
    r"(?<!\w)[a-z]\^?\(?[a-z\d]?\)? ?(?:[-+*/<>=^\u2264\u2265\u2208]|->)+ ?[-(]?(?:\d|[a-z](?![a-z]))|\bo\([\w ]+\)"
)
CONVERSION = re.compile(r"(?:convert |how much is |how many )?[\d.,]+ ?[^\W\d]+ (?:to|in|into) [^\W\d]+\W*")
MEDIUM_POINTS, UNKNOWN_POINTS = 2.0, 2.2  # a plain task, and a message about which nothing is known
TASK_POINTS = (("hard", 5.0), ("large", 4.5), ("loose", 3.0), ("plain", MEDIUM_POINTS))
TASKS: Mapping[str, str] = MappingProxyType(  # which kind of task a term asks for; the heavier one wins
    dict.fromkeys(PLAIN, "plain")
    | dict.fromkeys(LOOK_UP, "look-up")
    | dict.fromkeys(LOOSE, "loose")
    | dict.fromkeys(LARGE, "large")
    | dict.fromkeys(HARD, "hard")
)
HEAVY = HARD | LARGE
ELSEWHERE = (  # words, and parts of words in other scripts, by what they ask for
    (TERMS["hard_elsewhere"], TERMS["hard_parts"], 5.0),
    (TERMS["plain_elsewhere"], TERMS["plain_parts"], MEDIUM_POINTS),
)
UNSIMPLE = EXPLAIN.terms | TERMS["hard_elsewhere"] | TERMS["plain_elsewhere"]
KNOWN = HEAVY.union(EXPLAIN.terms, BRIEF.terms, MATERIAL, FACTS, DEFINING, A_THING, *(cue.terms for cue in CUES))
KNOWN |= UNSIMPLE
PAIRS = frozenset(tuple(term.split()[:2]) for term in KNOWN if " " in term)  # what longer terms begin with
OPENINGS = frozenset(term.split()[0] for term in TASKS if " " in term)
SUBSTANCE = 5  # letters: words as long as that carry a message's matter
STRAIGHT_QUOTES = MappingProxyType(str.maketrans("\u201c\u201d\u2019", '""\''))
ORDINARY_LETTERS = frozenset("aiu0123456789")  # words of one letter; the others name something: x, A and B
UNKNOWNS = frozenset("xy")  # every equation has them
COUNTED = (  # what is counted, how much of it is nothing special, points for each more, and at most
    ("numbers", 2, 0.3, 1.5),
    ("letters for things", 1, 0.6, 1.8),
    ("formulae", 0, 0.5, 1.5),
    ("questions", 1, 0.5, 1.5),
    ("list items", 2, 0.4, 1.2),
    ("commas", 1, 0.2, 1.6),
    ("long words", 4, 0.3, 3.0),
)
DIGITS = re.compile(r"\d+")
MATERIAL_FROM = re.compile(r"[:?\n](?=.{30})", re.DOTALL)
ITEM = re.compile(r"^[ \t]*(?:[-*\u2022]|\d{1,3}[.)])[ \t]", re.MULTILINE)


def read(message: str) -> list[Signal]:
    """Return the signals in a message. Reads at most HEAD + TAIL characters, in linear time."""
    text = message if len(message) <= HEAD + TAIL else f"{message[:HEAD]}\n{message[-TAIL:]}"
    fenced = text.split("```")
    ascii_only = text.isascii()
    prose = "\n".join(fenced[::2]).lower()
    if not ascii_only:
        prose = prose.translate(STRAIGHT_QUOTES)
    code = len(fenced) > 1 or bool(CODE_LINE.search(text))
    parts = prose.split('"')
    own = " ".join(parts[::2]) if len(parts) % 2 else prose
    quoted = len(prose) - len(own)
    tokens = TOKEN.findall(own)
    words = [token for token in tokens if token not in PUNCTUATION]
    if words and len(words) <= 15 and CHAT.issuperset(words):
        return [Signal("small talk", 0.0)]
    digits = len(DIGITS.findall(own))
    if digits and _is_sum(own, words):
        return [Signal("arithmetic", 0.0)]

    if (end := MATERIAL_FROM.search(own)) and MATERIAL & _known(head := TOKEN.findall(own[: end.start()])):
        tokens, words = head, [token for token in head if token not in PUNCTUATION]
        quoted += len(own) - end.end()
        own = own[: end.start()]
    phrases = _known(tokens)
    asks = _asked(tokens)
    told = phrases - asks["loose"].keys() if "loose" in asks else phrases  # its points are the task's
    cues = {}
    if not CUED.isdisjoint(told):
        cues = {cue.name: cue.seen(told) for cue in CUES if not cue.terms.isdisjoint(told)}
    spaceless = 0 if ascii_only else sum(letter > "\u2e7f" for letter in own) // 2  # scripts without spaces
    size = len(words) + spaceless
    numbers = digits + len(NUMERALS.intersection(words))

    if not code and (small := _small(tokens, phrases, asks, cues, size, numbers, quoted)):
        return [small]
    signals = _tasks(prose, phrases, asks)
    signals += cues.values()
    if code:
        signals.append(Signal("code", 1.0))
    if "trouble" in cues and (code or "systems" in cues):
        signals.append(Signal("trouble in code or systems", 2.0))
    substance = len({word for word in words if len(word) >= SUBSTANCE}) + spaceless
    letters = {word for word in words if len(word) == 1} - ORDINARY_LETTERS
    formulae = len(FORMULA.findall(own)) if letters else 0
    items = len(ITEM.findall(own)) if "\n" in own else 0
    counts = (numbers, len(letters - UNKNOWNS), formulae, tokens.count("?"), items, tokens.count(","), substance)
    for (name, free, each, most), count in zip(COUNTED, counts, strict=True):
        if count > free:
            signals.append(Signal(f"{count} {name}", min(most, each * (count - free))))
    score = sum([points for _, points in signals])
    if BRIEF.terms & phrases and "hard" not in asks and score > MEDIUM_POINTS:
        brief = BRIEF.seen(phrases)
        signals.append(Signal(brief.name, max(brief.points, MEDIUM_POINTS - score)))
    return signals


def _known(tokens: list[str]) -> frozenset[str]:
    """Return the terms of the vocabulary, of one to three words, that stand in a text."""
    found = KNOWN.intersection(tokens)
    if not (pairs := PAIRS.intersection(itertools.pairwise(tokens))):
        return found
    at = [i for i, pair in enumerate(itertools.pairwise(tokens)) if pair in pairs]
    return found | KNOWN.intersection(" ".join(tokens[i : i + length]) for i in at for length in (2, 3))


def _asked(tokens: list[str]) -> dict[str, dict[str, None]]:
    """Return the terms by which each clause begins its task, by the kind of task."""
    asks: dict[str, dict[str, None]] = {}
    opening, before, helping = True, "", False
    for at, word in enumerate(tokens):
        if word in JOINTS:
            opening, before, helping = True, "", False
        elif opening:
            looks_up = word in LOOK_UP
            if word in POLITE and not (looks_up and tokens[at + 1 : at + 2] not in (["you"], ["u"])):
                before, helping = word, helping or word == "help"
                continue
            opening = False
            if looks_up and before in SPEAKER:  # "I have a cat" tells, "have I" asks
                continue
            kind, term = _task(tokens, at)
            if kind == "look-up" and helping:
                kind = "plain"
            if kind:
                asks.setdefault(kind, {})[term] = None
    return asks


def _task(tokens: list[str], at: int) -> tuple[str, str]:
    if tokens[at] in OPENINGS:
        for length in (4, 3, 2):
            term = " ".join(tokens[at : at + length])
            if kind := TASKS.get(term):
                return kind, term
    return TASKS.get(tokens[at], ""), tokens[at]


def _is_sum(own: str, words: list[str]) -> bool:
    if CONVERSION.fullmatch(own):
        return True
    return any(map(str.isdecimal, words)) and all(word in TERMS["arithmetic"] or word.isdecimal() for word in words)


def _small(
    tokens: list[str],
    phrases: frozenset[str],
    asks: Mapping[str, Mapping[str, None]],
    cues: Mapping[str, Signal],
    size: int,
    numbers: int,
    quoted: int,
) -> Signal | None:
    """Return the one signal of a greeting or a look-up, None when the message is more than that."""
    plain, loose = asks.get("plain", {}), asks.get("loose", {})
    if "hard" in asks or "large" in asks or not loose.keys() <= {"find"}:
        return None
    defining = (bool(DEFINING & phrases) and size <= 12) or (bool(A_THING & phrases) and size <= 6)
    if UNSIMPLE & phrases and not defining:
        return None
    if FACTS & phrases and size <= 8 and FETCH.issuperset(plain):
        return Signal("look-up of a fact", 0.0)
    if asked := asks.get("look-up"):
        question = "?" in tokens
        listing = size > 8 and asked.keys() <= {"list", "name"}
        word_problem = size > 14 and numbers > 1
        long_material = bool(MATERIAL & phrases) and size + quoted // 6 > (8 if "convert" in phrases else 25)
        instructions = size > 15 and not question
        deep = size > 6 and not defining and ("depth" in cues or "trouble" in cues)
        if not (plain or loose or listing or word_problem or long_material or instructions or deep):
            return Signal(f"look-up {next(iter(asked))!r}", 0.0)
    elif not asks and size <= 9 and tokens[:1] and tokens[0] in GREETINGS:
        return Signal("small talk", 0.0)
    return None


def _tasks(prose: str, phrases: frozenset[str], asks: Mapping[str, Mapping[str, None]]) -> list[Signal]:
    """Return the signals of what is asked for."""
    found = [Signal(f"asks to {next(iter(asks[kind]))!r}", points) for kind, points in TASK_POINTS if kind in asks]
    for terms, parts, points in ELSEWHERE:
        there = terms & phrases or (() if prose.isascii() else {part for part in parts if part in prose})
        if there and all(signal.points < points for signal in found):
            found.append(Signal(f"asks to {min(there)!r}", points))
    if "plain" not in asks and EXPLAIN.terms & phrases:
        found.append(EXPLAIN.seen(phrases))
    if not found and (material := MATERIAL & asks.get("look-up", {}).keys()):
        found.append(Signal(f"asks to {min(material)!r}", MEDIUM_POINTS))
    if not found:
        found.append(Signal("nothing known, so up", UNKNOWN_POINTS))
    if len(asks.get("plain", ())) > 1:
        found.append(Signal("several tasks", min(1.5, 0.5 * (len(asks["plain"]) - 1))))
    mentioned = HEAVY & phrases - asks.get("hard", {}).keys() - asks.get("large", {}).keys()
    if mentioned:
        found.append(Signal(f"mentions {min(mentioned)!r}", min(2.0, float(len(mentioned)))))
    return found


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
