"""19.6.2: a cache that finds questions by meaning.

Readings accepted: any embedder (the API's, a local one), any threshold, any place in the response; a cache per caller
or one for all. A hit is recognised by the model's answer to an earlier question coming back.

The chapter prints 0.92 and wants its two questions to match. What the API would give them is not known here, so to who
asks it the stand-in gives that pair 0.955: a cache that keeps the printed threshold is not wrong for our embeddings.
In the same way it gives 0.45 to two questions of which nobody would say that they are the same: a threshold below that
separates nothing. Who embeds without the API is judged by what the code names, since its vectors cannot be seen.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from shared.offline import embeddings as embed
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours asks a guard after the threshold: to embeddings 10 USD and 100 USD, or safe and not safe, are nearly one."
)

BULLET_1 = "19.6.2 bullet 1"
BULLET_2 = "19.6.2 bullet 2"
BULLET_3 = "19.6.2 bullet 3"
BULLET_4 = "19.6.2 bullet 4"
REWORDED = (
    ("What is the capital of France?", "What's the capital of France?"),
    ("How do I boil an egg?", "How do I boil eggs?"),
    ("Tell me a joke about cats", "Please tell me a joke about cats"),
)
PAIR = re.compile(r"(?:(?:what|how)(?: ?s| is)? )?(?:the )?weather(?P<today> today)?")
SAME = ("How do I boil an egg?", "Could you please explain to me how I should boil an egg?")
FAR = "How do I sort numbers in Python?"
AT_045 = "weather lamp gravel stone tin"  # in the stand-in's eyes, from "What's the weather?"
EMBEDS = re.compile(r"embed|vec|tf_?idf|sentence_?transformer|gensim|spacy", re.IGNORECASE)
COMPARES_TEXT = re.compile(
    r"difflib|SequenceMatcher|get_close_matches|rapidfuzz|fuzzywuzzy|thefuzz|jellyfish|levenshtein", re.IGNORECASE
)
UNRELATED = ("Who wrote the play Hamlet?", FAR, "Why do volcanoes erupt?")


def served_again(app: App, known: str, asked: str) -> tuple[bool, Exchange]:
    """Ask both; say whether the second was answered with what the model said to the first."""
    first, second = app.chat(known), app.chat(asked)
    if first.status != 200 or not first.answered:
        raise NotChecked(f"the first question was answered {first.status}, without the model's words")
    return bool(app.model.said(first.text) & app.model.said(second.text)), second


def plain(text: str) -> str:
    """Return the words of a text, as a cache may send them to be embedded."""
    return " ".join(re.findall(r"\w+", text.lower()))


def pair(text: str) -> str:
    """Let the chapter's two questions stand at a cosine of 0.955."""
    match = PAIR.fullmatch(plain(text))
    return text if not match else "Please, what's the weather?" if match["today"] else "What's the weather?"


@contextlib.contextmanager
def embedding_by_meaning(app: App, instead: Callable[[str], str]) -> Iterator[None]:
    """Let the stand-in embed another text `instead` of each that it is given."""

    def by_meaning(body: dict[str, Any]) -> dict[str, Any]:
        texts = [body["input"]] if isinstance(body.get("input"), str) else body.get("input")
        if isinstance(texts, list):
            texts = [instead(text) if isinstance(text, str) else text for text in texts]
        return embed(body | {"input": texts})

    app.model.model.embed = by_meaning
    try:
        yield
    finally:
        app.model.model.embed = embed


def asks_the_model(app: App, before: int) -> bool:
    """Say whether an answer was asked for since the model had been called `before` times."""
    return any(call.messages for call in list(app.model.model.calls)[before:])


@check(
    "Two messages don't need to be identical to get a cache hit: and an identical one gets it too",
    chapter=BULLET_1,
    needs={"llm"},
    hints=(
        "The second time the same question is asked, the model must not be asked again.",
        "Look into the cache before you call the model, and put the answer in afterwards.",
        "hit = cache.get(message); if hit is None: answer = await ...; cache.set(message, answer)",
    ),
)
def identical(app: App) -> None:
    hit, second = served_again(app, "What is the capital of Peru?", "What is the capital of Peru?")
    expect(hit, when="a question asked for the second time", expected="the answer given the first time", seen=second)


@check(
    "Two messages don't need to be identical to get a cache hit",
    chapter=BULLET_1,
    needs={"llm"},
    hints=(
        "A dictionary from text to answer finds nothing but the same text.",
        "Compare the new question's embedding with those of all cached questions, and take the nearest.",
        "best = max(entries, key=lambda e: cosine_similarity(e.embedding, embedding)); serve it when near enough",
    ),
)
def reworded(app: App) -> None:
    hit, second = served_again(app, "What is the capital of Chile?", "What is the capital of Chile?")
    if not hit:
        raise NotChecked("not even the same question is served from the cache")
    tried: list[str] = []
    for known, asked in REWORDED:
        before = len(app.model.model.calls)
        app.chat(known)
        if not asks_the_model(app, before):
            continue  # served from an unrelated question: another check's matter
        hit, second = served_again(app, known, asked)
        tried.append(f"{asked!r} after {known!r}")
        if hit:
            return
    if not tried:
        raise NotChecked("questions that were never asked before are served from the cache, too")
    expect(
        False,
        when="a question asked in slightly other words: " + "; ".join(tried),
        expected="at least one of them served from the cache",
        seen=second,
    )


@check(
    '"What\'s the weather?" and "How\'s the weather today?" should match',
    chapter=BULLET_2,
    needs={"llm"},
    hints=(
        "This pair must hit, in this order or the other.",
        "Print the similarity of the two: 0.955 here, less with most embedders. A threshold belongs to its embedder.",
        "Lower similarity_threshold until the pair is over it, and keep apart by other means what must not match.",
    ),
)
def weather(app: App) -> None:
    hit, second = served_again(app, "What is the capital of Cuba?", "What is the capital of Cuba?")
    if not hit:
        raise NotChecked("not even the same question is served from the cache")
    with embedding_by_meaning(app, pair):
        hit, second = served_again(app, "What's the weather?", "How's the weather today?")
    expect(
        hit,
        when='"How\'s the weather today?" after "What\'s the weather?"',
        expected="the answer given to the first",
        seen=second,
    )


@check(
    "Use embeddings to compare message similarity",
    chapter=BULLET_3,
    needs={"llm"},
    hints=(
        "Similarity has to come from embeddings, not from comparing letters or counting words in common.",
        'client.embeddings.create(model="text-embedding-3-small", input=message).data[0].embedding',
        "np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)) of the two embeddings",
    ),
)
def embeddings(app: App) -> None:
    before = len(app.model.model.calls)
    seen = app.chat("How deep is the Baltic Sea?")
    calls = list(app.model.model.calls)[before:]
    if not any(call.path == "/embeddings" for call in calls):
        used = names(app.target.file.read_text(encoding="utf-8")) if app.target.file else set()
        letters = [name for name in sorted(used) if COMPARES_TEXT.search(name)]
        expect(
            not letters and any(EMBEDS.search(name) for name in used),
            when="a question that was never asked before",
            expected="an embedding of it: from the API, or from an embedder in your code",
            came=f"calls to {', '.join(call.path for call in calls) or 'nothing'}, and "
            + (f"{letters[0]}, which compares letters" if letters else "no embedder in the file"),
            seen=seen,
        )
        return
    if not any(served_again(app, known, asked)[0] for known, asked in REWORDED):
        raise NotChecked("no question in other words is served from the cache")
    with embedding_by_meaning(app, lambda text: SAME[0] if plain(text) == plain(SAME[1]) else text):
        hit, second = served_again(app, *SAME)
    expect(
        hit,
        when=f"{SAME[1]!r} after {SAME[0]!r}, while both have the same embedding",
        expected="the answer given to the first: the embedding decides, not the letters",
        seen=second,
    )


def names(source: str) -> set[str]:
    """Return the names in a program; `encode` is one where it encodes something, as `model.encode(text)` does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="encode"), args=[argument, *_]) if not isinstance(
                argument, ast.Constant
            ):
                found.add("embed by encode")
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.AsyncFunctionDef(name=name) | ast.alias(name=name):
                found.add(name)
            case ast.ImportFrom(module=str(name)):
                found.add(name)
    return found


@check(
    "Set a similarity threshold for cache hits",
    chapter=BULLET_4,
    needs={"llm"},
    hints=(
        "The nearest question is not always near: an unrelated one must go to the model.",
        "Compare the best similarity with the threshold before you serve it.",
        "if best_similarity >= self.similarity_threshold: return best.response",
    ),
)
def threshold(app: App) -> None:
    app.chat("What's the weather?")
    for message in UNRELATED:
        before = len(app.model.model.calls)
        with embedding_by_meaning(app, lambda text: AT_045 if plain(text) == plain(FAR) else text):
            second = app.chat(message)
        expect(
            second.status == 200 and second.answered and asks_the_model(app, before),
            when=f'{message!r} after "What\'s the weather?"' + (", at a cosine of 0.45" if message == FAR else ""),
            expected="an answer of its own from the model",
            seen=second,
        )
