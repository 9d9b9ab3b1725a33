"""What two questions have in common, read without a model: the guard and the offline embedder of exercise 2 (19.6).

    differ("Is it safe to take aspirin?", "Is it not safe to take aspirin?")  ->  "negation"
    differ("What's the weather?", "How's the weather today?")                 ->  ""

A question is reduced to what it asks (how, why, who, ...) and to the words that carry it, wordings of one meaning made
equal. All knowledge stands in `question_words.txt` beside this file; copy the two together.

Limit: English. What the word file does not know counts as a difference, so it errs towards "not the same".
"""

import functools
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

__all__ = ["OfflineEmbedder", "differ", "is_personal", "is_storable", "normalise", "read", "same_answer", "tokens"]

WORDS = Path(__file__).with_name("question_words.txt")
MAX_WORDS = 64  # a longer message is full of details: it is the same word for word or not at all

SHORT_FORMS = tuple(
    (re.compile(pattern, re.IGNORECASE), full)
    for pattern, full in (
        (r"[\u2018\u2019]", "'"),
        (r"\bcan(?:'t|not|t)\b", "can not"),
        (r"\bwon'?t\b", "will not"),
        (r"\b(do|does|did|is|are|was|were|has|have|had|would|could|should|must)n'?t\b", r"\1 not"),
        (r"'ll\b", " will"),
        (r"\b(what|how|who|where|when|why|it|that|there)'?s\b", r"\1 is"),
        (r"'[a-z]{0,2}\b", " "),
    )
)
TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)*"  # numbers and versions
    r"|[^\W\d_]+[+#]*"  # words, C++, C#
    r"|(?<![^\W\d_])[-+*/^=<>](?=\s*\d)|[%$\u20ac\u00a3\u00a5]"  # signs between numbers, and what they are counted in
)
SUFFIXES = (  # (ending, letters that must be left, what takes its place)
    *(("ies", 2, "y"), ("ied", 2, "y"), ("ization", 2, "iz"), ("isation", 2, "iz"), ("ions", 5, ""), ("ion", 5, "")),
    *(("ments", 5, ""), ("ment", 5, ""), ("ing", 3, ""), ("ed", 3, ""), ("sses", 2, "ss"), ("ches", 2, "ch")),
    *(("shes", 2, "sh"), ("xes", 2, "x"), ("zes", 2, "z"), ("oes", 1, "o"), ("ss", 0, "ss"), ("us", 0, "us")),
    *(("is", 0, "is"), ("s", 3, ""), ("ally", 4, ""), ("ly", 4, "")),
)
PERSONAL = re.compile(
    r"\b(?:my|mine|myself)\b|\b(?:was|did|have) i\b|\bam i\b(?! allowed| able)|\bwho i am\b|\babout me\b"
    r"|\bdo i (?:owe|own|like|live|work|have\b(?! to\b))",
    re.IGNORECASE,
)
HOW_TO = re.compile(
    r"\bhow (?:do|can|to|should|could|would)\b|\bway to\b|\b(?:steps|process) (?:to|for)\b", re.IGNORECASE
)
REFUSAL = re.compile(
    r"\b(?:i'?m|i am) (?:sorry|unable|not able)\b|\bi (?:can(?:'t|not| not)|won't|do not|don't) "
    r"(?:help|assist|answer|do|provide|discuss|know|have access)\b|\bas an ai\b",
    re.IGNORECASE,
)
PERSONAL_ANSWER = re.compile(r"\byour \w+(?: \w+)? (?:is|are|was|were)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Vocabulary:
    """The word file, read once: patterns, wordings that mean the same, and words that say little."""

    rewrites: tuple[tuple[re.Pattern[str], str], ...]
    tables: dict[str, dict[tuple[str, ...], tuple[str, ...]]]

    def one(self, table: str, word: str) -> str | None:
        found = self.tables[table].get((word,))
        return found[0] if found else None

    def has(self, table: str, word: str) -> bool:
        return (word,) in self.tables[table]


@functools.cache
def vocabulary(path: Path = WORDS) -> Vocabulary:
    """Read the word file; its comments say how it is written."""
    rewrites: list[tuple[re.Pattern[str], str]] = []
    tables: dict[str, dict[tuple[str, ...], tuple[str, ...]]] = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line[1 : line.index("]")]
            table = tables[section] = {}
        elif section == "rewrites" and " => " in line:
            pattern, _, new = line.partition(" => ")
            rewrites.append((re.compile(pattern), new))
        elif line and not line.startswith("#"):
            meaning, _, wordings = line.rpartition(":")
            whole = section in ("light", "weak", "same")  # these three are matched after stemming
            read = (lambda text: tuple(map(stem, text.split()))) if whole else (lambda text: tuple(text.split()))
            for wording in [*wordings.split(","), *([meaning] if section == "same" else [])]:
                key = tuple(w for w in read(wording) if section != "same" or (w,) not in tables["drop"])
                table[key] = read(meaning) if meaning else key
    return Vocabulary(tuple(rewrites), tables)


def stem(word: str) -> str:
    """Cut a word's inflection, the same way for every word; what is left need not be a word. Numbers stay."""
    if not word.isalpha():
        return word
    for ending, left, new in SUFFIXES:
        if word.endswith(ending) and len(word) - len(ending) >= left:
            word = word[: len(word) - len(ending)] + new
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "so":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word


def tokens(text: str) -> Iterable[str]:
    """Yield words and numbers in lower case, except a name that would pass for a small word (US, IT, A)."""
    text, known = unicodedata.normalize("NFC", text), vocabulary()
    shouted = text.isupper()
    for pattern, full in SHORT_FORMS:
        text = pattern.sub(full, text)
    for at, token in enumerate(TOKEN.findall(text)):
        word = token.casefold()
        name = token.isupper() and (len(token) > 1 or (at > 0 and word == "a"))  # "Is A bigger than B?"
        if name and not shouted and known.has("drop", word):
            yield token
        elif word[0].isdigit():
            yield word.replace(",", "")
        else:
            yield known.one("numbers", word) or word


class Meaning(NamedTuple):
    """What the guard reads in a question. Numbers are words; `flow` keeps the order, with the links between."""

    asks: str = ""
    words: tuple[str, ...] = ()
    light: frozenset[str] = frozenset()
    flow: tuple[str, ...] = ()
    negations: int = 0
    tense: str = ""
    roles: tuple[tuple[str, str], ...] = ()
    wanted: str = ""  # who or what does it ("doer"), or whom it is done to ("object")
    long: bool = False


@functools.lru_cache(maxsize=4096)
def read(text: str) -> Meaning:
    """Reduce a question to what it asks (how, why, who, ...) and of what."""
    known = vocabulary()
    spoken = list(tokens(text))
    if len(spoken) > MAX_WORDS:
        return Meaning(flow=tuple(spoken), long=True)
    tense = "future" if "will" in spoken else "past" if {"did", "was", "were"} & set(spoken) else ""
    wanted = ""
    match spoken:
        case ["who" | "what", "do" | "does" | "did", *_]:
            wanted = "object"
        case ["who" | "what", verb, *_] if not known.has("opening", verb):
            wanted = "doer"
    line = " ".join(spoken)
    for pattern, new in known.rewrites:
        line = pattern.sub(new, line)
    spoken = _replace(line.split(), known.tables["frames"])
    asks = (known.one("opening", spoken[0]) if spoken else None) or ""
    kept = [w if known.has("links", w) or known.has("not", w) else stem(w) for w in spoken if not known.has("drop", w)]
    flow: list[str] = []
    words: list[str] = []
    light: set[str] = set()
    roles: dict[str, str] = {}
    link, negations = "", 0
    for word in _replace(kept, known.tables["same"]):
        if asked := known.one("asking", word):
            asks = asked if asks in ("", "what") or known.has("opening", spoken[0]) else asks
            continue
        flow.append(word)
        if known.has("links", word):
            link = "to" if word in ("into", "toward", "towards", "onto") else word
            continue
        if known.has("not", word):
            negations += 1
            continue
        if known.has("light", word) or known.has("weak", word):
            light.add(word)
        else:
            words.append(word)
            roles.setdefault(word, link)
        link = ""
    return Meaning(asks, tuple(words), frozenset(light), tuple(flow), negations, tense, tuple(roles.items()), wanted)


def _replace(words: Sequence[str], table: dict[tuple[str, ...], tuple[str, ...]]) -> list[str]:
    """Put meanings for wordings, the longest that fits first."""
    out: list[str] = []
    at = 0
    while at < len(words):
        for length in range(min(8, len(words) - at), 0, -1):
            if (meaning := table.get(tuple(words[at : at + length]))) is not None:
                out += meaning
                at += length
                break
        else:
            out.append(words[at])
            at += 1
    return out


def differ(one: str, other: str) -> str:
    """Say what keeps two questions from having one answer; "" when nothing does.

    It compares what is asked, every word and number, negation, order and direction, and tense. Its only knowledge is
    the word file, so it takes unknown wordings for different questions: it errs towards a miss.
    """
    a, b = read(one), read(other)
    if a.long or b.long:
        return "" if a.flow == b.flow else "too long to compare"
    words, others = set(a.words), set(b.words)
    if a.negations != b.negations:
        return "negation"
    if a.asks != b.asks and not vocabulary().has("alike", f"{a.asks or 'nothing'}-{b.asks or 'nothing'}"):
        return f"asks {a.asks or 'nothing'} and {b.asks or 'nothing'}"
    if words != others:
        return "words: " + ", ".join(sorted(words ^ others))
    if not words and a.flow != b.flow:
        return "nothing in common"
    more, less = a.light - b.light, b.light - a.light
    verb = any(vocabulary().has("weak", word) for word in more | less)
    if (more and less) or (verb and a.asks != b.asks):  # "What is a loan?", "How do I get a loan?"
        return "words: " + ", ".join(sorted(a.light ^ b.light))
    if [w for w in a.words if w[0].isdigit()] != [w for w in b.words if w[0].isdigit()]:
        return "order of numbers"
    if {a.tense, b.tense} == {"past", "future"}:
        return "tense"
    return _direction(a, b)


def _direction(a: Meaning, b: Meaning) -> str:
    if {a.wanted, b.wanted} == {"doer", "object"}:  # "Who beat Spain?", "Who did Spain beat?"
        return "direction: doer / object"
    roles = dict(b.roles)
    for word, link in a.roles:
        pair = {link, roles[word]}
        if len(pair) == 2 and pair & {"from", "by"} and pair & {"to", "for"}:
            return f"direction: {' / '.join(sorted(pair))} {word}"
    at, there = ({word: i for i, word in reversed(list(enumerate(m.flow)))} for m in (a, b))
    for x in at.keys() & set(a.words):
        for y in at.keys() & set(a.words):
            if at[x] < at[y] and there[x] > there[y]:  # "x to y" became "y to x"; "x of y" may become "y x"
                between = set(a.flow[at[x] + 1 : at[y]]) & set(b.flow[there[y] + 1 : there[x]])
                if between - {"of"}:
                    return f"order: {x}, {y}"
    return ""


# ---------------------------------------------------------------- embedders: each brings the threshold that fits it


class OfflineEmbedder:
    """Hashes what the guard reads into a vector: deterministic, without a model, and honest about what it is.

    It knows no meaning beyond the word file: "doctor" and "physician" are one only because they stand there. Of two
    wordings that the file does not connect it says that they differ. Good for tests and for a first service.
    """

    threshold = 0.80

    def __init__(self, dimensions: int = 512) -> None:
        self.dimensions = dimensions

    def __call__(self, text: str) -> "Vector":
        """Return a vector of length 1, or of zeros when nothing is asked."""
        meaning = read(text)
        weights = dict.fromkeys(meaning.flow, 0.15) | dict.fromkeys(meaning.light, 0.3)
        for word in meaning.words:
            weights[word] = 1.0 + math.log(meaning.words.count(word))
        if meaning.asks not in ("", "what"):
            weights["?" + meaning.asks] = 0.3
        vector = np.zeros(self.dimensions, np.float32)
        for word, weight in weights.items():
            digest = hashlib.blake2b(word.encode(), digest_size=16).digest()
            for i in range(0, 16, 4):  # four places each, so that two words rarely share them all
                place = int.from_bytes(digest[i : i + 4], "little")
                vector[place % self.dimensions] += weight if place >> 31 else -weight
        return vector / (np.linalg.norm(vector) or np.float32(1.0))


# ---------------------------------------------------------------- the same text, and what may be kept


@functools.lru_cache(maxsize=4096)
def normalise(message: str) -> str:
    """Return the text by which exact matches are found: white space, capitals at a word's start, a final mark aside."""
    text = unicodedata.normalize("NFC", message)
    text = text.lower() if text.isupper() else text
    return " ".join(w.lower() if w[1:].islower() or len(w) == 1 else w for w in text.rstrip(" \t\n?!.").split())


def is_personal(message: str) -> bool:
    """Say whether a message is about its sender ("my order"); how to do something to one's own things is for all."""
    return bool(PERSONAL.search(message)) and not HOW_TO.search(message)


def is_storable(message: str, response: str) -> bool:
    """Say whether an answer may be kept: there is one, it is no refusal, and it is not about the sender."""
    refused = not response.strip() or REFUSAL.search(response.replace("\u2019", "'")[:200])
    return not (refused or is_personal(message) or PERSONAL_ANSWER.search(response))


def same_answer(one: str, other: str) -> bool:
    """Say whether two answers agree, as far as words show it: the same numbers and negations, a third of the words."""
    a, b = list(tokens(one)), list(tokens(other))
    facts = [sorted(w for w in words if w[0].isdigit() or w in ("not", "no", "never")) for words in (a, b)]
    return facts[0] == facts[1] and 3 * len({*a} & {*b}) >= len({*a} | {*b})
