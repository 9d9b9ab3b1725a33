"""19.6.1: the router.

Readings accepted: any rules and any names of the tiers, as long as messages that nobody would argue about go to three
different models, two of three in each tier; gpt-4 or gpt-4-turbo (or a snapshot) for the complex ones; log lines in any
form, before or after the answer; savings at any prices and of any number of tokens, at a GET path or in the chat's
answer, in a field that has "sav" in its name, or as a sentence that says so: in a text, a page, or what the app logs.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = "ours sends what it does not know up, not down, and counts hard questions that went to a weak model."

BULLETS = tuple(f"19.6.1 bullet {number}" for number in range(1, 5))
SIMPLE = ("Hello!", "What is the capital of France?", "What is 2 + 2?")
MEDIUM = (
    "Explain how a refrigerator keeps food cold, with one example from everyday life.",
    "Summarize the plot of Romeo and Juliet for me in about five sentences, please.",
    "Write a friendly email to my team that announces a new meeting time on Friday morning.",
)
COMPLEX = (
    "Analyze the trade-offs between a monolith and microservices for a bank, design an architecture step by step "
    "that survives the loss of a region, compare it with two alternatives in cost and latency, and evaluate the risks.",
    "Design a distributed rate limiter for three regions. Explain the algorithm step by step, analyze its consistency, "
    "compare it with a centralized design, and debug the race condition that two simultaneous requests can cause.",
    "Prove step by step that there are infinitely many primes, then analyze why the argument fails for twin primes, "
    "compare it with an analytic proof, and evaluate in detail which of them generalizes to arithmetic progressions.",
)
CONTAINS_HI = (
    "Analyze the architecture of this system step by step, design a replacement which is cheaper, compare both in "
    "detail and evaluate everything that might go wrong while shifting machines."
)
NAMES = {
    "simple": (SIMPLE, r"gpt-4o-mini(-\d{4}-\d\d-\d\d)?"),
    "medium": (MEDIUM, r"gpt-4o(-\d{4}-\d\d-\d\d)?"),
    "complex": (COMPLEX, r"gpt-4(-turbo)?(-preview|-\d{4}|-\d{4}-\d\d-\d\d)?"),
}


def asked(app: App, message: str) -> tuple[Exchange, str]:
    """Send a message; return the answer and the model that was asked last for it."""
    before = len(app.model.model.calls)
    exchange = app.chat(message)
    calls = [call for call in list(app.model.model.calls)[before:] if call.messages]
    if exchange.status != 200 or not calls:
        raise NotChecked(f"a chat was answered {exchange.status}, and the model was asked {len(calls)} times")
    return exchange, str(calls[-1].body.get("model"))


def models_of(app: App, messages: tuple[str, ...]) -> tuple[Exchange, Counter[str]]:
    """Return the last answer, and how many of the messages went to which model."""
    found = [asked(app, message) for message in messages]
    return found[-1][0], Counter(model for _, model in found)


def most(models: Counter[str]) -> str:
    """Return the model that most of them went to."""
    return models.most_common(1)[0][0]


def words(models: Counter[str]) -> str:
    """Say which models were asked how often."""
    return ", ".join(f"{model} {count} times" for model, count in models.items())


@check(
    'Classifies requests into "simple," "medium," and "complex" categories',
    chapter=BULLETS[0],
    needs={"llm"},
    hints=(
        "A greeting, an explanation and a design with trade-offs must end up in three different places.",
        "Look for words of greeting and look-ups first, then for words such as analyze, design, prove, step by step; "
        "let the length decide the rest.",
        'if words & SIMPLE: return "simple"; if words & COMPLEX or len(words) > 60: return "complex"; return "medium"',
    ),
)
def three_tiers(app: App) -> None:
    found = {tier: models_of(app, messages) for tier, (messages, _) in NAMES.items()}
    models = {tier: most(counts) for tier, (_, counts) in found.items()}
    expect(
        len(set(models.values())) == 3,
        when="three greetings and look-ups, three requests to explain or write, three long designs and proofs",
        expected="three different models for the three kinds (two of each three are enough)",
        came="; ".join(f"{tier}: {words(counts)}" for tier, (_, counts) in found.items()),
        seen=found["complex"][0],
    )


@check(
    'Classifies requests into "simple," "medium," and "complex" categories: by words, not by parts of words',
    chapter=BULLETS[0],
    needs={"llm"},
    hints=(
        '"hi" is in this, which, architecture and machines.',
        "Compare whole words: split the message, or put \\b around the words of a pattern.",
        'words = set(re.findall(r"[a-z\']+", message.lower())); if words & GREETINGS and len(words) < 5: ...',
    ),
)
def whole_words(app: App) -> None:
    _, hard = models_of(app, COMPLEX)
    _, simple = models_of(app, SIMPLE)
    if most(hard) == most(simple):
        raise NotChecked(f"greetings and long designs both go to {most(hard)}")
    exchange, model = asked(app, CONTAINS_HI)
    expect(
        model != most(simple),
        when='a hard request with "this", "which" and "architecture" in it',
        expected=f"another model than {most(simple)}, which greetings go to",
        came=f"the model {model}",
        seen=exchange,
    )


@check(
    "Routes to gpt-4o-mini, gpt-4o, and gpt-4 respectively",
    chapter=BULLETS[1],
    needs={"llm"},
    hints=(
        "The name of the model is what goes into the call.",
        "Map each category to its model and pass that as `model=` to the call, not a constant.",
        'model = {"simple": "gpt-4o-mini", "medium": "gpt-4o", "complex": "gpt-4"}[complexity]',
    ),
)
def right_models(app: App) -> None:
    found = {tier: models_of(app, messages) for tier, (messages, _) in NAMES.items()}
    used = {tier: most(counts) for tier, (_, counts) in found.items()}
    if len(set(used.values())) < 3:
        raise NotChecked(f"the three kinds of messages go to {len(set(used.values()))} models")
    for tier, (_, name) in NAMES.items():
        expect(
            re.fullmatch(name, used[tier]) is not None,
            when=f"requests that are {tier}",
            expected={"simple": "gpt-4o-mini", "medium": "gpt-4o", "complex": "gpt-4 (or gpt-4-turbo)"}[tier],
            came=words(found[tier][1]),
            seen=found[tier][0],
        )


def logged_for(app: App, message: str) -> tuple[Exchange, str, str]:
    """Send a message; return the answer, the model, and what the app wrote meanwhile."""
    before = len(app.output())
    exchange, model = asked(app, message)
    return exchange, model, app.output()[before:]


@check(
    "Logs which model was selected and why",
    chapter=BULLETS[2],
    needs={"llm", "logs"},
    hints=(
        "Each request needs a line with the name of the model.",
        "logger.info shows nothing until logging is configured: the root logger starts at WARNING.",
        'logging.basicConfig(level=logging.INFO) ... logger.info("selected %s: %s", model, reason)',
    ),
)
def logs_model(app: App) -> None:
    for message in (SIMPLE[1], COMPLEX[0]):
        exchange, model, written = logged_for(app, message)
        expect(
            model in written,
            when="a chat, and what your app printed or logged meanwhile",
            expected=f"the name of the selected model, {model}",
            came=repr(written[-300:]) if written else "nothing was written",
            seen=exchange,
        )


LENGTH = re.compile(
    r"(?:length|len|chars?|characters|words?|score)\W{0,4}\d+|\d+ ?(?:chars?|characters|words?)|[<>]=? ?\d+"
)


@check(
    "Logs which model was selected and why: the reason is there",
    chapter=BULLETS[2],
    needs={"llm", "logs"},
    hints=(
        "The name of the model alone does not say why.",
        "Return the reason with the category: the pattern that matched, the words that were found, or the length.",
        'return "complex", "keyword: analyze"   and log both',
    ),
)
def logs_reason(app: App) -> None:
    reasons = set()
    for message in (SIMPLE[0], SIMPLE[1], COMPLEX[0]):
        exchange, model, written = logged_for(app, message)
        lines = [line for line in written.splitlines() if "/chat" not in line and "HTTP/1" not in line]
        if not any(model in line for line in lines):
            raise NotChecked("the model is not logged")
        text = " ".join(lines).replace(message, " ").lower()
        text = re.sub(
            r"gpt-[\w.-]+|\b(simple|medium|complex|info|debug|warning|model|selected|tier|complexity)\b", " ", text
        )
        text = re.sub(
            r"\b(using|routing|routed|router|request|to|for|root|message|with|the|category|route|level|time)\b",
            " ",
            text,
        )
        reasons.add(" ".join((*re.findall(r"[a-z]{3,}", text), *LENGTH.findall(text))))
        expect(
            bool(re.search(r"[a-z]{3,}", text)) and len(text.split()) > 0,
            when="a chat, and what your app wrote about it",
            expected="besides the model and the category a reason: a pattern, words that were found, the length",
            came=repr(written[-300:]),
            seen=exchange,
        )
    expect(
        len(reasons) > 1,
        when="a greeting, a look-up and a long design, and what your app wrote about them",
        expected="reasons that tell them apart",
        came=repr(min(reasons)[:200]),
        seen=exchange,
    )


def savings(value: Any, name: str = "") -> dict[str, float]:
    """Return every number under a name with "sav" in it, by its path."""
    if isinstance(value, dict):
        found: dict[str, float] = {}
        for key, inner in value.items():
            found |= savings(inner, f"{name}.{key}" if name else str(key))
        return found
    if isinstance(value, str) and (number := re.match(r"\s*[$\u20ac]?\s*(-?\d*\.?\d+)(?![\w-])", value)):
        name += " in %" if value[number.end() :].lstrip().startswith("%") else ""
        value = float(number[1])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and "sav" in name.lower():
        return {name: float(value)}
    return {}


def told(text: str) -> dict[str, float]:
    """Return the number in the last sentence of a text that speaks of savings, such as "saved $0.12 (93 %)"."""
    plain = re.sub(r"<[^>]*>", " ", text)
    found = re.findall(r"\bsav(?:ed?|ings?)\b[^\d\n-]{0,60}(-?\d*\.?\d+) ?(%?)", plain, re.IGNORECASE)
    return {f"the last sentence about savings {found[-1][1]}".strip(): float(found[-1][0])} if found else {}


def report(app: App) -> tuple[Exchange, dict[str, float], Any]:
    """Find where savings are reported: a GET path, the answer to a chat, or what the app writes."""
    paths = (app.send("GET", "/openapi.json").json() or {}).get("paths", {})
    paths = [path for path, ways in paths.items() if "get" in ways and "{" not in path]
    for path in sorted(paths, key=lambda path: not re.search("sav|cost|rout|report|stat|metric", path)):
        exchange = app.send("GET", path, key=app.key)
        if exchange.status != 200 or path in ("/docs", "/redoc", "/openapi.json"):
            continue
        if found := savings(exchange.json()) or (told(exchange.text) if exchange.json() is None else {}):
            return exchange, found, exchange.json() or exchange.text
    exchange = app.chat(SIMPLE[0])
    if (found := savings(exchange.json())) or "logs" not in app.capabilities:
        return exchange, found, exchange.json()
    found = told(app.output())
    return exchange, found, found


@check(
    "Tracks cost savings compared to always using gpt-4",
    chapter=BULLETS[3],
    needs={"llm"},
    hints=(
        "Somebody must be able to read what was saved: a GET endpoint is enough.",
        "Add up what each request cost, and what it would have cost with gpt-4; the difference is what was saved.",
        '@app.get("/savings") def savings(): return router.get_savings_report()',
    ),
)
def saves(app: App) -> None:
    for message in SIMPLE:
        asked(app, message)
    exchange, found, _ = report(app)
    expect(
        bool(found),
        when="three easy chats, then every GET path and one more chat",
        expected='a number in a field such as "savings_usd" or "savings_percent"',
        seen=exchange,
    )
    expect(
        any(value > 0 for value in found.values()) and all(value >= 0 for value in found.values()),
        when="three easy chats on the cheap model, then the report",
        expected="savings above zero",
        came=str(found),
        seen=exchange,
    )


@check(
    "Tracks cost savings compared to always using gpt-4: every request counts",
    chapter=BULLETS[3],
    needs={"llm"},
    hints=(
        "The report must change with each request.",
        "Add the actual cost and the baseline's cost after every answer, at prices per token and direction.",
        "self.actual += cost(model, usage); self.baseline += cost('gpt-4', usage)",
    ),
)
def counts(app: App) -> None:
    asked(app, SIMPLE[1])
    exchange, found, before = report(app)
    if not found:
        raise NotChecked("no savings are reported")
    asked(app, SIMPLE[1])
    asked(app, COMPLEX[0])
    exchange, _, after = report(app)
    expect(
        after != before,
        when="the report, two more chats, the report again",
        expected="numbers that have changed",
        seen=exchange,
    )


@check(
    "Tracks cost savings compared to always using gpt-4: by the tokens that were used",
    chapter=BULLETS[3],
    needs={"llm"},
    beyond=True,  # the chapter says "actual cost", and does not say how it is known
    hints=(
        "A short answer and a long one do not save the same.",
        "An assumed number of tokens a request flatters: hard questions get the long answers, and those save nothing.",
        "tokens = completion.usage.total_tokens, from each answer of the model",
    ),
)
def by_tokens(app: App) -> None:
    reports = [after(app, COMPLEX[0], 200), *(after(app, SIMPLE[1], words) for words in (10, 10, 3000))]
    steps = changes(reports)
    if not any(any(by) for by in steps.values()):
        raise NotChecked("no savings are reported, or they do not change")
    expect(
        any(abs(long) > 3 * max(abs(first), abs(second)) for first, second, long in steps.values()),
        when="an easy question is answered twice with 10 words and then with 3000, and the report after each",
        expected="savings that grow with the third one by much more",
        came="; ".join(f"{name}: by {', '.join(f'{step:.6f}' for step in by)}" for name, by in steps.items()),
        seen=reports[-1][0],
    )


@check(
    "Tracks cost savings compared to always using gpt-4: and not compared to another model",
    chapter=BULLETS[3],
    needs={"llm"},
    hints=(
        "What goes to gpt-4 anyway saves nothing, and does not cost more than always using gpt-4 either.",
        "The baseline is the price of the strongest model for the same tokens, whatever model was asked.",
        "baseline += cost('gpt-4', usage); actual += cost(model, usage)",
    ),
)
def baseline(app: App) -> None:
    reports = [after(app, SIMPLE[1], 10), after(app, SIMPLE[1], 3000), after(app, COMPLEX[0], 3000)]
    amounts = {  # of dollars, as 3000 words cost: no shares, and no percentages
        name: by
        for name, by in changes(reports).items()
        if 0.005 < by[0] < 1 and not re.search("perc|pct|%|rat[eio]|share", name.lower())
    }
    if not amounts:
        raise NotChecked("no amount that was saved is reported")
    name, (easy, hard) = max(amounts.items(), key=lambda item: item[1][1])
    expect(
        hard > -easy / 20,
        when="an easy question is answered with 3000 words, and then a hard one",
        expected="savings that do not fall: always using gpt-4 would have cost the hard one as much",
        came=f"{name}: {easy:+.6f} by the easy one, {hard:+.6f} by the hard one",
        seen=reports[-1][0],
    )


def after(app: App, message: str, words: int) -> tuple[Exchange, dict[str, float]]:
    """Send a message that is answered with so many words; return the report after it."""
    model = app.model.model
    reply, model.reply = model.reply, lambda messages: "word " * words
    try:
        asked(app, message)
    finally:
        model.reply = reply
    return report(app)[:2]


def changes(reports: list[tuple[Exchange, dict[str, float]]]) -> dict[str, list[float]]:
    """Return by how much each number changed from one report to the next."""
    return {
        name: [later.get(name, 0) - sooner.get(name, 0) for (_, sooner), (_, later) in itertools.pairwise(reports)]
        for name in reports[0][1]
    }
