"""What speaks for an easy or a hard question: the signals that the router of exercise 1 (19.6) adds up.

    read("Prove that pi is irrational")   ->  asks to 'prove' +5.0, depth (prove) +1.2, mathematics (irrational) +0.7

The first word of substance in each clause tells the task; code, conditions, numbers and subject words add to it. The
words stand beside this file, by concept, in message_words.toml.

Limit: it reads words, most of them English, and no meaning.
"""

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["Signal", "read"]

HEAD, TAIL = 6_000, 2_000  # characters that are read: an instruction stands at the beginning or at the end
WORDS = Path(__file__).with_name("message_words.toml")


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
