"""Secrets in text: by the format of their provider, and by the name that they stand under."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

from security_audit.findings import rules, words

PASSWORDS = words("passwords")
SECRETS = PASSWORDS | words("secrets")
KEY_KINDS = words("key-kinds")
LOGINS = words("logins")
NOT_SECRET = words("not-secret")
PLACEHOLDER = re.compile(
    r"(?i)your|example|placeholder|change.?me|change.?in|changeit|dummy|fake|x{4}|redacted|replace|insert|sample|todo"
    r"|mock|not.?a.?real|(?:^|[-_. ])(?:test|here|dev|demo|local|offline|stand.?in|check)(?:[-_. ]|$)"
    r"|^<|>$|[{}]|^\$|%\(|\*{3}|\.{3}|^(?:pass(?:word|wd)?|pwd|secret|user)$"
)
NOT_RANDOM = re.compile(
    r"(?:[a-z]+://|arn:|#?/|[.~\\]).*|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*|"
    r"[\w-]{1,24}(?:\.[A-Za-z_]\w{0,23})+|[A-Za-z]+(?:[-_ /:][A-Za-z]+)*\d?"
)
# a test key is a key
STAGE = re.compile(r"(?i)^(?:[a-z0-9]{2,12}[-_])?(?:test|dev)[-_](?=[a-z0-9]{12}|[\w=-]{40})|^[sr]k_test_|^sk-")
SIGNS = re.compile(
    "(?i)secret_?key$|(?:jwt|session|signing|cookie)_?(?:secret|key)$"
)  # chosen by hand, as passwords are
ASSIGNED = re.compile(r"""([A-Za-z_][\w.]{0,80})\s{0,5}[:=]\s{0,5}["']([^"'\n]{6,200})["']""")
JOINED = re.compile("[a-z]{2,}(?:token|apikey|secret|password)")  # npmtoken = ...
JUMBLED = re.compile(r"(?![0-9a-f-]+$)(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9_-]*[A-Za-z0-9]{14}[A-Za-z0-9_-]*(?<=.{24})")
NAMED = re.compile("(?i)secret|key|pass|pwd|token")
BOASTS = re.compile("(?i)super|ultra|hard.?coded|insecure|unsafe|exposed")


@cache
def formats() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return one pattern for all providers' formats, and a cheap one that matches wherever it could."""
    patterns = rules()["secrets"].values()
    at_a_word = [p for p in patterns if p.startswith(r"\b") and " " not in p]  # asked once for all of them: is it long?
    anywhere = [p for p in patterns if p not in at_a_word]
    return re.compile(rf"({'|'.join(anywhere)})|\b(?=\S{{14}})({'|'.join(at_a_word)})"), re.compile(
        r"[\w.+/=$~-]{16}|://|BEGIN|[; ][Pp](?:[Ww]|ass)|curl |--\w"
    )


def entropy(text: str) -> float:
    """Return Shannon's entropy in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def placeholder(value: str) -> bool:
    """Tell a stand-in from a secret: it says so, or hardly varies."""
    body = STAGE.sub("", value)
    return stand_in(body) or len(set(body)) < 5 or entropy(body) < 2.3


def stand_in(value: str) -> bool:
    """Tell a value that says of itself that it is none."""
    return bool(PLACEHOLDER.search(value))


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield offset and value of every secret that a provider's format gives away."""
    every, cheap = formats()
    if not cheap.search(text):
        return
    for match in every.finditer(text):
        inner = [group for group in match.groups() if group is not None]
        value = inner[-1]  # the part in parentheses, where a pattern has one
        if not placeholder(value):
            yield match.start() + match[0].find(value), value


def words_of(name: str) -> list[str]:
    """Split snake_case, kebab-case and CamelCase."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


@cache  # a program has few names, and many uses of them
def names_secret(name: str, *, bare_token: bool = True) -> bool:
    """Tell whether something of this name holds a secret: `openai_api_key`, `DB_PASSWORD`, but not `api_key_header`."""
    words = words_of(name)
    if words[:1] == ["valid"] and words[-1] == "keys":
        words = words[1:]  # the keys that are accepted, not whether one is
    if not words or NOT_SECRET & set(words):
        return False
    if SECRETS & set(words) or JOINED.fullmatch(words[-1]):
        return True
    if (words[-1] == "pass" and LOGINS & set(words)) or (words[-1] == "pat" and len(words) > 1):
        return True
    if words[-1] == "token":
        return len(words) > 1 or bare_token
    return any(b in ("key", "keys") and a in KEY_KINDS for a, b in pairwise(words))


def shuffled(value: str) -> bool:
    """Tell letters whose case changes as in no word: "ORnXsqfNWSttdl"."""
    return value.isalpha() and len(value) >= 12 and len(words_of(value)) * 3 > len(value)


def assigned_in(text: str) -> Iterator[str]:
    """Yield every secret that stands in quotes beside a secret's name: in code that was commented out."""
    for name, value in ASSIGNED.findall(text):
        last_name = name.rpartition(".")[2]
        if names_secret(last_name) and secret_value(last_name, value):
            yield value


def jumbled_key(name: str, value: str) -> bool:
    """Tell a key of whatever service, by its value alone: `weather_key`, but not `cache_key`, which holds words."""
    words = words_of(name)
    return (
        words[-1:] == ["key"]
        and not NOT_SECRET & set(words)
        and len(value) <= 200
        and bool(JUMBLED.fullmatch(value))
        and entropy(value) >= 3.6
        and not placeholder(value)
    )


def secret_value(name: str, value: str) -> bool:
    """Tell whether a value under a secret's name is a secret, not a placeholder, a word or a reference."""
    mixed = shuffled(value)
    varied = mixed or (bool(re.search(r"\d", value)) and bool(re.search(r"[A-Za-z]", value)))
    password = bool(PASSWORDS & set(words_of(name))) or bool(SIGNS.search(name))
    words = re.fullmatch(r"(?:[\w-]+ ){0,3}[\w-]+", value)
    if words and NAMED.search(value) and BOASTS.search(value) and not placeholder(value):
        return True  # "the-super-secret-word-key": words, and still what the program signs with
    if password and re.fullmatch("[a-z]{4}(?: [a-z]{4}){3}", value):
        return True  # Google's app passwords
    if not re.fullmatch(r"[!-~]{6,}", value) or placeholder(value):
        return False
    if NOT_RANDOM.fullmatch(value) and not (mixed or (password and varied and value.isalnum())):
        return False
    if password:
        return varied or bool(re.search(r"[^\w.-]", value))
    return len(value) >= 12 and entropy(value) >= 2.8 and (varied or len(value) >= 24)
