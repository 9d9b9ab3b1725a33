"""What a text says beneath its disguise: the readings that the detector and the output filter of exercise 2 (19.7) use.

    fold("\uff29gn\u00f6re")             ->  "ignore"
    list(views("cmVmLTAxMjM0NTY3ODlhYg=="))  ->  among others "ref0123456789ab"

Every reading takes time in proportion to the length of the text. Readings that cost more than a glance are taken only
where their signs are there: a digit or a capital in the middle of a word, dots and dashes, many numbers. A plain reply
of 1,000 characters takes 60 to 95 us, mostly for reading it in other orders; one full of escapes up to 700 us.

Limit: it undoes what is listed here. A translation, a riddle, an acrostic over letters that are not first or last, a
cipher with a key, compression, or a secret spread over several replies pass.
"""

import base64
import binascii
import html
import itertools
import operator
import re
import string
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

__all__ = [
    "ALPHABET",
    "MAX_DEPTH",
    "UNBROKEN",
    "Exchanged",
    "base64_text",
    "decoded",
    "fold",
    "hex_text",
    "in_bytes",
    "normalise",
    "squeeze",
    "views",
    "without_leet",
]

MAX_DEPTH = 2  # encodings within encodings
INVISIBLE = dict.fromkeys(
    [0xAD, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF, *range(0x202A, 0x202F), *range(0x2060, 0x206A)]
)
ASCII = "".join(map(chr, range(0x20, 0x7F)))
TAGS = str.maketrans(
    "".join(chr(0xE0000 + ord(c)) for c in ASCII), ASCII
)  # ASCII in invisible letters: some models read it
LOOKALIKES = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u043c\u0442\u043a\u043d\u0432"
    "\u03b1\u03b5\u03bf\u03c1\u03c5\u03b9\u03ba\u03bd\u03c4\u0131\u0261\u0251\u1d00\u1d07\u026a\u1d0f\u1d1b\u0280\ua731\u0274\u1d18",
    "aeopcyxijshdqwmtkhbaeopuikvtigaaeiotrsnp",
)
QUOTES = dict.fromkeys([0x201C, 0x201D], '"')
BOXED = {
    first + number: letter
    for first in (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)  # squared, circled, filled, regional
    for number, letter in enumerate(string.ascii_lowercase)
}
FOLDED = INVISIBLE | TAGS | LOOKALIKES | QUOTES | BOXED
FOLDED |= dict.fromkeys([0x200C, 0x200D, *range(0x300, 0x370), *range(0xFE00, 0xFE10)])
TO_FOLD = re.compile(f"[{''.join(map(chr, filter((0x10000).__gt__, FOLDED)))}\U00010000-\U0010ffff]")
ALPHABET = string.ascii_letters.encode()
KEPT = string.ascii_lowercase.encode() + string.digits.encode()
DROPPED = bytes(set(range(256)) - set(KEPT))
UNLEET = bytes.maketrans(b"013457", b"oieast")
ROT13 = bytes.maketrans(KEPT[:26], KEPT[13:26] + KEPT[:13])
LETTERS = bytes.maketrans(KEPT[:26], b"a" * 26)
ENCODED = re.compile(r"[A-Za-z0-9+/=_-]{16,}")
UNBROKEN = bytes.maketrans(ALPHABET + b"0123456789+/=_-", b"x" * (len(ALPHABET) + 15))
KINDS = (
    dict.fromkeys(string.ascii_lowercase, "a")
    | dict.fromkeys(string.ascii_uppercase, "A")
    | dict.fromkeys(string.digits, "1")
    | dict.fromkeys("+/", "+")
)
SHAPE = "".join([KINDS.get(chr(code), " ") for code in range(256)]).encode()
CODED = re.compile(  # a capital or a digit in the middle of a word, or many of them in a row
    "[A-Z0-9](?:(?<=[a-z].)|(?<=[0-9])(?:[A-Za-z]|[0-9]{15})|(?<=[A-Z])[A-Z]{2})"
)
PLAIN_WORD = re.compile(b"A?a*|A*|1+a{0,3}|A{1,3}1{1,3}")  # in shapes: Word, WORD, 21st, B12
SPOKEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = {word: str(number) for number, word in enumerate(SPOKEN)}
CODE = """
.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----.
"""
MORSE = dict(zip(CODE.split(), string.ascii_lowercase + string.digits, strict=True))
FIRST, LAST = operator.itemgetter(0), operator.itemgetter(-1)
DASHES = dict(zip("\u00b7\u2022\u2212\u2013\u2014_", "..----", strict=True))
NUMBERS = (
    (16, re.compile(r"(?<![0-9a-z])[0-9a-f]{2}(?![0-9a-z])")),
    (10, re.compile(r"(?<![0-9a-z])[0-9]{2,3}(?![0-9a-z])")),
    (8, re.compile(r"(?<![0-9a-z])[0-7]{2,3}(?![0-9a-z])")),
    (2, re.compile(r"[01]{8}")),
)
FIRST_DIGIT = "[0-9](?<![0-9].)(?<![0-9][a-z].)(?<![0-9a-z][a-z]{2}.)"  # of a word, after at most two letters
IN_A_ROW = re.compile(  # eight numbers, with at most one word between two of them; a search for a digit is fast
    f"{FIRST_DIGIT}[0-9a-z]*+(?:[^0-9a-z]++(?:[a-z]++[^0-9a-z]++)?[a-z]{{0,2}}[0-9][0-9a-z]*+){{7}}"
)
DIGIT_RUNS = bytes(code if chr(code) in string.digits else ord(" ") for code in range(256))
BEFORE_NUMBERS = re.compile(r"0x|\\x|&#x?|u\+00|[%=\\]")
ESCAPES = (
    ("\\", re.compile(r"\\u\{?([0-9a-f]{2,6})\}?|\\x([0-9a-f]{2})")),
    ("+", re.compile(r"u\+([0-9a-f]{4,6}) ?")),
    ("=", re.compile(r"=([0-9a-f]{2})")),
)
BULLET = re.compile(r"^[ \t]*(?:[0-9]+[.):]|[-*])[ \t]", re.MULTILINE)


def normalise(text: str) -> str:
    """Return the text as the model should get it: no invisible characters, hidden ASCII tags made visible.

    Compatibility forms become plain letters (NFKC). Joiners stay, since Persian, Hindi and emoji need them.
    """
    return text if text.isascii() else unicodedata.normalize("NFKC", text).translate(INVISIBLE | TAGS)


def fold(text: str) -> str:
    """Return the text for comparing only: lower case, without accents, look-alike letters replaced by Latin ones."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text).lower()
    return plain.translate(FOLDED).lower() if TO_FOLD.search(plain) else plain  # to look is ten times as fast


def in_bytes(text: str) -> bytes:
    """Encode any text, also with the lone halves of surrogates that JSON lets through."""
    return text.encode("utf-8", "surrogatepass")


def squeeze(text: str) -> str:
    """Return only the letters and digits of a text, folded: spaces, dashes and line breaks hide nothing then."""
    return bare(fold(text)).decode()


def without_leet(letters: str) -> str:
    """Read digits as the letters that they resemble, secrets and replies alike."""
    return letters.encode().translate(UNLEET).decode()


def bare(folded: str) -> bytes:
    return folded.encode("ascii", "ignore").translate(None, DROPPED)


def views(text: str, depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield a text folded, then the letters and digits of each of its readings."""
    folded = fold(text)
    words = folded.split()
    yield folded
    for view in arranged(folded, words):
        yield view.decode()
    if depth:
        encoded = CODED.search(text)
        for inner in itertools.chain(unwrapped(text, folded, words), decoded(text) if encoded else ()):
            yield from views(inner, depth - 1)
        for letters in in_pieces(text) if encoded else ():
            yield letters.decode()
            yield letters[::-1].decode()
            yield letters.translate(ROT13).decode()


def arranged(folded: str, words: list[str]) -> Iterator[bytes]:
    """Yield what stands there in another order, or only in every so-manieth place."""
    letters = bare(folded)
    for view in (letters, bare(" ".join(words[::-1]))):  # words in reverse; each word in reverse
        yield view
        yield view[::-1]
    yield letters.translate(ROT13)
    yield letters.translate(UNLEET)  # to compare with what was translated alike
    yield letters[::2]
    yield letters[1::2]
    yield bare("".join(map(FIRST, words)))
    yield bare("".join(map(LAST, words)))
    if "\n" in folded:
        lines = [line.split() for line in folded.splitlines() if line and not line.isspace()]
        yield bare("".join([line[0][0] for line in lines]))
        yield bare("".join([line[-1][-1] for line in lines]))
        yield bare(BULLET.sub("", folded))


def unwrapped(text: str, folded: str, words: list[str]) -> Iterator[str]:
    """Yield the texts that are written with escapes, numbers, words for digits or Morse code in a text."""
    if (plain := unescaped(text)) != text:
        yield plain
    runs = in_bytes(folded).translate(DIGIT_RUNS).split()  # cheap to count, and mostly too few
    if any(len(run) > 15 for run in runs) or (len(runs) > 7 and IN_A_ROW.search(folded)):
        yield from numbers(folded)
    words = folded.replace("-", " ").split() if "-" in folded else words
    if len(DIGITS.keys() & words) > 2:
        yield " ".join([DIGITS.get(word, word) for word in words])
    for sign, plain in DASHES.items():
        text = text.replace(sign, plain)
    if ".-" in text or "-." in text:
        yield "".join([MORSE.get(token, " ") for token in text.replace("/", " ").split()])


def shapes_of(text: str) -> list[bytes]:
    """Return the words of a text as base64 would have them, each capital as A, small letter as a, digit as 1."""
    return in_bytes(text).translate(SHAPE).split()


def unescaped(text: str) -> str:
    """Undo the escapes of HTML, URLs, JSON, programs, mails and Unicode's U+, and drop tags."""
    if "&" in text:
        text = html.unescape(text)
    for _ in range(2):
        text = unquote(text) if "%" in text else text
    for sign, escape in ESCAPES:
        if sign in text:
            text = re.sub(escape.pattern, character, text, flags=re.IGNORECASE)
    return re.sub("<[^<>]*>", "", text) if "<" in text else text


def character(match: re.Match[str]) -> str:
    code = int(next(filter(None, match.groups())), 16)
    return chr(code) if code < 0x110000 else match[0]


def numbers(folded: str) -> Iterator[str]:
    """Yield what characters the numbers of a text stand for, by base, and as places in the alphabet."""
    bare_numbers = BEFORE_NUMBERS.sub(" ", folded)
    for base, pattern in NUMBERS:
        yield "".join([chr(code) for n in pattern.findall(bare_numbers) if 32 <= (code := int(n, base)) < 127])
    places = re.findall(r"(?<![0-9])[0-9]{1,2}(?![0-9])", folded)
    yield "".join([string.ascii_lowercase[int(n) - 1] for n in places if 1 <= int(n) <= 26])


def decoded(text: str) -> Iterator[str]:
    """Yield the readable text inside base64, base32 and hex runs of 16 characters or more, also over several lines."""
    for source in (text, text.replace("\n", "")) if "\n" in text else (text,):
        for run in ENCODED.findall(source) if b"x" * 16 in in_bytes(source).translate(UNBROKEN) else ():
            for decode in (base64_text, hex_text, base32_text):
                if (inner := decode(run)) and " ".join(inner.split()).translate(INVISIBLE).isprintable():
                    yield inner


def in_pieces(text: str) -> Iterator[bytes]:
    """Yield the letters of base64 that is broken up by spaces, dashes, words or bullets, or is written backwards."""
    shapes = shapes_of(text)
    no_words = {shape for shape in set(shapes) if not PLAIN_WORD.fullmatch(shape)}
    if sum(map(len, filter(no_words.__contains__, shapes))) < 12:
        return
    tokens = re.findall(r"[A-Za-z0-9+/]+", text)
    odd = list(itertools.compress(tokens, [shape in no_words for shape in shapes]))
    for joined in ("".join(tokens), "".join(odd), "".join(tokens)[::-1]):
        for start in range(4):
            piece = joined[start:]
            yield base64.b64decode(piece + "A" * (-len(piece) % 4)).lower().translate(None, DROPPED)
    yield squeeze("".join([base64_text(token) for token in odd])).encode()


def base64_text(run: str) -> str:
    """Decode base64, also its URL-safe form, with or without padding; empty when it is none."""
    plain = run.rstrip("=").translate({45: "+", 95: "/"})
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        return raw.decode().replace("\0", "")
    except (binascii.Error, UnicodeDecodeError):
        return ""


def base32_text(run: str) -> str:
    """Decode base32; empty when it is none."""
    plain = run.rstrip("=")
    try:
        return base64.b32decode(plain + "=" * (-len(plain) % 8)).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def hex_text(run: str) -> str:
    """Decode pairs of hex digits; empty when it is none."""
    try:
        return bytes.fromhex(run.removeprefix("0x")).decode()
    except ValueError:
        return ""


class Exchanged:
    """Finds a text whose letters were exchanged one for one: Caesar, Atbash, any simple substitution.

    A sentence is known by the lengths of its words, seven in a row; a secret by its digits, four or more.
    """

    def __init__(self, sentences: str, known_secrets: Iterable[str], *, row: int = 7) -> None:
        words = fold(sentences).split()
        rows = (words[start : start + row] for start in range(0, len(words) - row + 1, row))
        self._rows = [(lengths(words), "".join(words)) for words in rows]
        known = [secret for secret in known_secrets if sum(map(str.isdigit, secret)) > 3]
        self._secrets = [(shape_of(secret), secret) for secret in known]

    def found(self, reply: str) -> bool:
        """Tell whether one of the texts is there with its letters exchanged."""
        folded = fold(reply)
        words = folded.split()
        row = lengths(words)
        for looked_for, text in self._rows:
            for start in occurrences(looked_for, row):
                if one_for_one(text, "".join(words[start : start + len(looked_for)])):
                    return True
        letters = bare(folded).decode()
        shape = shape_of(letters)
        return any(
            one_for_one(secret, letters[start : start + len(secret)])
            for looked_for, secret in self._secrets
            for start in occurrences(looked_for, shape)
        )


def lengths(words: list[str]) -> bytes:
    return bytes([len(word) % 256 for word in words])


def shape_of(letters: str) -> bytes:
    return letters.encode().translate(LETTERS)


def occurrences(looked_for: bytes, text: bytes) -> Iterator[int]:
    start = text.find(looked_for)
    while start >= 0:
        yield start
        start = text.find(looked_for, start + 1)


def one_for_one(text: str, other: str) -> bool:
    """Tell whether each character stands for one other throughout, and no two for the same."""
    pairs = set(zip(text, other, strict=False))
    return len(text) == len(other) and len(pairs) == len(dict(pairs)) == len({there for _, there in pairs})
