"""19.6.2: the guard on labelled pairs, the cache against an oracle, concurrency, the app over HTTP, the script.

`data/question_pairs.jsonl` was written by hand for this repository: 355 paraphrases and 499 pairs that one answer
must not serve (numbers, negations and antonyms, names and places, directions, dates, near misses, unrelated), before
and while the word file was tuned. Part "tuned" was tuned on. "held" was kept aside (first score: recall 54 of 63,
nothing wrong). "third" and "last" were written when tuning was over; their first scores were recall 46 of 70 and 29
of 40, each with one wrong hit ("1000 words" for "100 words"; how to get a mortgage for what it is). "fourth" and
"fifth" came later, written without a look at the word file: first recall 33 of 44 and 32 of 42, each with one wrong
hit ("Is A bigger than B?" for "Is B bigger than A?"; "Who did Spain beat?" for "Who beat Spain?"), no swap of a
number or a negation among 76. The two rules that these hits led to are general; no word was added for "fifth". For a
figure of your own, sweep your own pairs.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exercise_2_19_6_solution import (
    HEAD,
    MAX_ASKED,
    MAX_ENTRIES,
    MAX_GUARDED,
    NO_SCOPE,
    TTL_S,
    CacheEntry,
    Hit,
    OfflineEmbedder,
    OpenAIEmbedder,
    Scope,
    SemanticCache,
    Served,
    create_app,
    main,
    measure,
)
from hypothesis import given
from hypothesis import strategies as st

from question_guard import (
    MAX_WORDS,
    WORDS,
    differ,
    is_personal,
    is_storable,
    normalise,
    read,
    same_answer,
    stem,
    tokens,
)
from question_sweep import Swept, pick, report, sweep, upper_bound
from shared.offline import Fault, OfflineModel
from shared.pricing import cost_usd
from tests.kit.fakes import FakeClock
from tests.kit.serving import KEYS, SETTINGS, client_of, serving

FILE = Path(__file__).parent / "data" / "question_pairs.jsonl"
PAIRS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
WEATHER, TODAY, PARIS = "What's the weather?", "How's the weather today?", "What's the weather in Paris?"


def everything_is_similar(text: str) -> list[float]:
    """The worst embedder there is."""
    return [1.0, 0.0]


def one_hot(*texts: str) -> Callable[[str], list[float]]:
    """An embedder that knows a few texts, each in a direction of its own."""
    return lambda text: [float(text == known) for known in texts]


def answering(*texts: str, keep: bool = True) -> Callable[[], Awaitable[tuple[str, bool]]]:
    """A model that says these things, one after the other, and then fails."""
    left = iter(texts)

    async def ask() -> tuple[str, bool]:
        await asyncio.sleep(0)
        return next(left), keep

    return ask


# ---------------------------------------------------------------- the guard


def served(cache: SemanticCache, pair: dict[str, Any]) -> bool:
    """Say whether a fresh scope that knows the first question answers the second."""
    scope = pair["a"], pair["b"]
    cache._store(pair["a"], "answer", cache._get_embedding(pair["a"]), scope)
    vector = cache._get_embedding(pair["b"])
    return cache._similar(pair["b"], vector, scope) is not None


@pytest.mark.parametrize("part", ["tuned", "held", "third", "last", "fourth", "fifth"])
@pytest.mark.parametrize("embed", [everything_is_similar, OfflineEmbedder()], ids=["everything is similar", "offline"])
def test_the_bars_on_labelled_pairs_whatever_the_embedder(embed: Callable[[str], Any], part: str) -> None:
    cache = SemanticCache(OfflineEmbedder.threshold, embed=embed)
    pairs = [pair for pair in PAIRS if pair["part"] == part]
    hits = [pair for pair in pairs if served(cache, pair)]
    wrong = [pair for pair in hits if not pair["same"]]
    alike = sum(pair["same"] for pair in pairs)
    assert (len(hits) - len(wrong)) / alike >= 0.60, "recall"
    assert (len(hits) - len(wrong)) / len(hits) >= 0.90, "precision"
    assert not wrong, "none of these pairs has ever been served; see what changed"


def test_there_are_enough_pairs_of_every_kind() -> None:
    kinds = [pair["kind"] for pair in PAIRS]
    assert len(PAIRS) >= 200
    assert {kind: kinds.count(kind) >= 15 for kind in kinds} == dict.fromkeys(kinds, True)
    assert {pair["kind"] for pair in PAIRS if pair["same"]} == {"paraphrase"}


@pytest.mark.parametrize("one", [WEATHER, TODAY, "what is the weather like?", "How's the weather?"])
def test_the_chapters_pair_matches_and_paris_does_not(one: str) -> None:
    assert differ(WEATHER, one) == ""
    assert differ(one, PARIS) == "words: paris"


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ("Is it safe to take aspirin?", "Is it not safe to take aspirin?", "negation"),
        ("Is it safe?", "Isn't it safe?", "negation"),
        ("Why can I log in?", "Why cant I log in?", "negation"),
        ("Convert 10 USD to EUR", "Convert 100 USD to EUR", "words: 10, 100"),
        ("Is A bigger than B?", "Is B bigger than A?", "order: "),
        ("Who beat Spain?", "Who did Spain beat?", "direction: doer / object"),
        ("What do lions eat?", "What eats lions?", "direction: doer / object"),
        ("What does that help?", "What helps that?", "direction: doer / object"),
        ("Write a 100 word essay", "Write a 1000 word essay", "words: 100, 1000"),
        ("What is new in Python 3.1?", "What is new in Python 3.10?", "words: 3.1, 3.10"),
        ("Convert 10 USD to EUR", "Convert 10 EUR to USD", "order: "),
        ("Convert $5 to euros", "Convert \u00a35 to euros", "words: gbp, usd"),
        ("What is 5 + 3?", "What is 5 - 3?", "words: +, -"),
        ("What is 7 - 2?", "What is 2 - 7?", "order of numbers"),
        ("Trains to Berlin", "Trains from Berlin", "direction: from / to berlin"),
        ("Who invented the telephone?", "When was the telephone invented?", "asks who and when"),
        ("Can I take vitamin D?", "Should I take vitamin D?", "asks can and should"),
        ("What will sales be?", "What were sales?", "tense"),
        ("Tell me about the US", "Tell me about us", "words: usa"),
        ("What is it?", "What is there to it?", "nothing in common"),
        ("Is Python simple?", "Is Python common?", "words: common, simpl"),
        ("Does the sun orbit the earth?", "Does the earth orbit the sun?", "order: "),
        ("What is a mortgage?", "How do I get a mortgage?", "words: get"),
        ("word " * (MAX_WORDS + 1), "word " * (MAX_WORDS + 2), "too long to compare"),
    ],
)
def test_what_differs_is_named_both_ways(one: str, other: str, why: str) -> None:
    assert differ(one, other).startswith(why)
    assert bool(differ(other, one))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("population of Tokyo", "Tokyo's population"),
        ("Who?", "Who is?"),
        ("A cat?", "cat"),
        ("WHAT IS A CAT?", "what is cat"),
        ("I am unable to log in", "I can't log in"),
        ("How much is 1,000 km in miles?", "How much is 1000 kilometers in miles?"),
        ("flights from Rome to Oslo", "flights to Oslo from Rome"),
        ("WHAT IS THE WEATHER?", WEATHER),
        ("What\u2019s the weather", WEATHER),
        ("word " * (MAX_WORDS + 1), "word " * (MAX_WORDS + 1)),
        ("How many feet are in 1 mile?", "How many feet are in a mile?"),
        ("Cu\u00e1l es la capital?", "cua\u0301l es la capital"),
    ],
)
def test_what_does_not_differ(one: str, other: str) -> None:
    assert differ(one, other) == ""


@given(st.text(max_size=80), st.text(max_size=80))
def test_abuse_any_text_can_be_read_and_is_equal_to_itself(one: str, other: str) -> None:
    assert differ(one, one) == ""
    assert bool(differ(one, other)) == bool(differ(other, one))


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_two_numbers_are_never_one(a: int, b: int) -> None:
    assert (differ(f"Convert {a} miles to km", f"Convert {b} miles to km") == "") == (a == b)


def test_the_word_file_says_each_wording_once() -> None:
    seen: dict[tuple[str, tuple[str, ...]], str] = {}
    section = ""
    for line in WORDS.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line[1 : line.index("]")]
        elif line and section in ("frames", "same") and not line.startswith("#"):
            for wording in line.partition(":")[2].split(","):
                key = section, tuple(map(stem, wording.split())) if section == "same" else tuple(wording.split())
                assert seen.setdefault(key, line) == line, f"{wording} stands on two lines"


def test_words_are_cut_to_one_stem_and_numbers_are_left_alone() -> None:
    assert len({stem(word) for word in ("stop", "stops", "stopped", "stopping")}) == 1
    assert [stem(word) for word in ("1000", "100", "3.10", "c++")] == ["1000", "100", "3.10", "c++"]
    spoken = "it is 1234.50 in the US is not it"
    assert " ".join(tokens("It's 1,234.50 in the US, isn't it?")) == spoken


def test_a_question_is_read_once() -> None:
    read.cache_clear()
    for _ in range(3):
        differ(WEATHER, TODAY)
    assert read.cache_info().misses == 2


@pytest.mark.parametrize(
    ("message", "personal"),
    [
        ("What is my balance?", True),
        ("Who am I?", True),
        ("What do I owe?", True),
        ("Did I pay?", True),
        ("How do I reset my password?", False),
        ("Do I have to pay?", False),
        ("Am I allowed to park here?", False),
        ("What is the myth of Troy?", False),
    ],
)
def test_personal_questions_are_told_from_how_to(message: str, personal: bool) -> None:
    assert is_personal(message) == personal


@pytest.mark.parametrize(
    "response", ["", "  ", "I'm sorry, but no.", "I cannot help with that.", "As an AI, I", "Your balance is 5 USD."]
)
def test_what_is_not_kept(response: str) -> None:
    assert not is_storable("hello", response)
    assert not SemanticCache().set("hello", response)


def test_answers_agree_when_numbers_negations_and_a_third_of_the_words_do() -> None:
    assert same_answer("It is 20 degrees", "20 degrees it is, warm")
    assert not same_answer("It is 20 degrees", "It is 21 degrees")
    assert not same_answer("It is safe", "It is not safe")
    assert same_answer("rain", "rain or snow")
    assert not same_answer("rain", "rain or snow today")


# ---------------------------------------------------------------- the embedders


def test_the_offline_embedder_is_deterministic_and_says_nothing_about_nothing() -> None:
    embed = OfflineEmbedder()
    assert embed(WEATHER).tobytes() == OfflineEmbedder()(WEATHER).tobytes()
    assert not embed("").any()
    assert float(np.linalg.norm(embed("How do I boil an egg?"))) == pytest.approx(1.0)
    assert embed(WEATHER).shape == (512,)
    assert OfflineEmbedder(64)(WEATHER).shape == (64,)


def test_the_chapters_pair_is_over_the_offline_threshold_and_paris_under_it() -> None:
    embed = OfflineEmbedder()
    assert float(embed(WEATHER) @ embed(TODAY)) >= OfflineEmbedder.threshold
    assert float(embed(WEATHER) @ embed(PARIS)) < OfflineEmbedder.threshold


@pytest.mark.anyio
async def test_the_live_embedder_asks_for_the_chapters_model_and_counts_tokens() -> None:
    model = OfflineModel()
    embed = OpenAIEmbedder(client_of(model))
    assert len(await embed(WEATHER)) == 1536
    assert model.calls[-1].body["model"] == "text-embedding-3-small"
    assert embed.tokens == 6


# ---------------------------------------------------------------- the cache


@pytest.fixture
def cache(clock: FakeClock) -> SemanticCache:
    return SemanticCache(clock=clock)


def test_the_defaults_are_the_chapters() -> None:
    cache = SemanticCache()
    assert (cache.similarity_threshold, cache.max_entries, cache.ttl_s, cache.verify_share) == (0.92, 10_000, 3600, 0)
    assert (MAX_ENTRIES, TTL_S, MAX_ASKED, MAX_GUARDED, HEAD) == (10_000, 3600.0, 64, 1_000, 256)
    assert cache.entries == []


def test_get_returns_response_similarity_and_whether_it_is_the_same_text(cache: SemanticCache) -> None:
    assert cache.get(WEATHER) is None
    assert cache.set(WEATHER, "sunny")
    assert cache.get(WEATHER) == ("sunny", 1.0, True)
    response, similarity, is_exact = cache.get(TODAY) or ("", 0.0, True)
    assert (response, is_exact) == ("sunny", False)
    assert similarity == pytest.approx(1.0)
    assert cache.get(PARIS) is None


def test_the_same_text_is_found_without_an_embedding_in_whatever_spacing_and_capitals() -> None:
    asked: list[str] = []
    cache = SemanticCache(embed=lambda text: asked.append(text) or [1.0])  # type: ignore[func-returns-value]
    cache.set("What is love?", "a song")
    assert asked == ["What is love?"]
    for text in ("What is love?", "  what IS love ", "WHAT IS LOVE", "what\nis love?!"):
        assert (cache.get(text) or Hit("", 0, False)).is_exact_match == (text != "  what IS love ")
    assert normalise("the US") != normalise("the us")
    assert normalise("10\u00b2") != normalise("102")


def test_one_embedding_per_miss() -> None:
    asked: list[str] = []
    cache = SemanticCache(embed=lambda text: asked.append(text) or [1.0])  # type: ignore[func-returns-value]
    assert cache.get(WEATHER) is None
    cache.set(WEATHER, "sunny")
    assert asked == [WEATHER]
    assert (cache.stats.embedded, cache.stats.missed) == (1, 1)


@pytest.mark.parametrize("value", [Scope("a", "b", "c"), CacheEntry("a", "b", ("c", "d"), 0.0), Served("a")])
def test_what_is_returned_are_values(value: Any) -> None:
    with pytest.raises(AttributeError):
        value.response = value.caller = "changed"


def test_abuse_misses_that_are_never_set_do_not_pile_up() -> None:
    cache = SemanticCache(embed=lambda text: [1.0])
    for n in range(MAX_ASKED + 10):
        cache.get(f"question {n}")
    assert len(cache._asked) == MAX_ASKED
    assert "question 9" not in cache._asked
    assert "question 10" in cache._asked


def test_the_guard_has_the_last_word_over_the_embedder() -> None:
    cache = SemanticCache(embed=everything_is_similar)
    cache.set("Convert 10 USD to EUR", "9.2")
    assert cache.get("Convert 100 USD to EUR") is None
    assert cache.stats.refused == 1
    assert SemanticCache(embed=everything_is_similar, guard=lambda a, b: "").set("a", "b")


def test_edge_a_similarity_of_exactly_the_threshold_is_served_in_spite_of_rounding() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 1536))
    for row in rows:
        cache = SemanticCache(1.0, embed=lambda text, row=row: row, guard=lambda a, b: "")  # type: ignore[misc]
        cache.set("one", "1")
        hit = cache.get("two")
        assert hit
        assert hit.similarity <= 1.0


def test_the_guard_looks_past_the_nearest_that_it_refuses() -> None:
    cache = SemanticCache(embed=everything_is_similar)
    cache.set("Convert 100 USD to EUR", "92")
    cache.set("Convert 10 USD to EUR", "9.2")
    assert cache.get("Please convert 10 dollars to euros") == ("9.2", 1.0, False)


def test_scopes_do_not_see_each_other() -> None:
    cache = SemanticCache()
    mine = Scope("alice", "gpt-4o-mini", "Be brief.")
    cache.set(WEATHER, "sunny", mine)
    for other in (
        replace(mine, caller="bob"),
        replace(mine, model="gpt-4o"),
        replace(mine, system_prompt="Be long."),
        replace(mine, context="Hi."),
        "another",
    ):
        assert cache.get(WEATHER, other) is None
        assert cache.get(TODAY, other) is None
    assert cache.get(TODAY, mine)
    with pytest.raises(TypeError):
        Scope()  # type: ignore[call-arg]


def test_a_service_has_to_name_the_scope() -> None:
    with pytest.raises(TypeError, match="scope"):
        SemanticCache().fetch(WEATHER, answering())  # type: ignore[call-arg, unused-coroutine]


def test_scopes_of_the_same_hash_do_not_see_each_other() -> None:
    cache = SemanticCache()
    assert hash(-1) == hash(-2)
    cache.set(WEATHER, "sunny", -1)
    assert cache.get(TODAY, -2) is None


def test_edge_an_answer_is_served_until_it_is_an_hour_old(cache: SemanticCache, clock: FakeClock) -> None:
    cache.set(WEATHER, "sunny")
    clock.now += TTL_S - 1 / 1024
    assert cache.get(WEATHER)
    assert cache.get(TODAY)
    clock.now += 1 / 1024
    assert cache.get(TODAY) is None
    assert cache.get(WEATHER) is None
    assert len(cache) == 0


def test_the_least_recently_used_goes_first() -> None:
    cache = SemanticCache(max_entries=2, embed=one_hot("one", "two", "three"))
    cache.set("one", "1")
    cache.set("two", "2")
    cache.get("one")
    cache.set("three", "3")
    assert [bool(cache.get(text)) for text in ("one", "two", "three")] == [True, False, True]
    assert len(cache) == 2


def test_a_similar_hit_counts_as_use() -> None:
    cache = SemanticCache(max_entries=2)
    cache.set(WEATHER, "sunny")
    cache.set("What is love?", "a song")
    assert cache.get(TODAY)
    cache.set("What is rust?", "iron oxide")
    assert cache.get(WEATHER)
    assert cache.get("What is love?") is None


def test_a_second_answer_counts_as_use() -> None:
    cache = SemanticCache(max_entries=2, guard=lambda a, b: "different")
    for message in ("What is a loan?", "Who won in 1966?", "What is a loan?", "Where is Oslo?"):
        cache.set(message, "answer")
    assert cache.get("What is a loan?")
    assert cache.get("Who won in 1966?") is None


def test_edge_heads_that_agree_and_tails_that_do_not_are_not_similar() -> None:
    def embed(text: str) -> list[float]:
        vector = [0.0] * 512
        vector[0], vector[300 if "first" in text else 400] = 0.6, 0.8
        return vector

    cache = SemanticCache(0.9, embed=embed, guard=lambda a, b: "")
    cache.set("the first", "answer")
    assert cache.get("the second") is None
    assert cache.get("again the first")


def test_a_similarity_is_never_over_one() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, 300))
    cache = SemanticCache(embed=lambda text: vectors[int(text.split()[-1])], guard=lambda a, b: "")
    for number in range(50):
        cache.set(f"one {number}", "answer")
    found = [cache.get(f"other {number}") for number in range(50)]
    assert all(hit and 0.999 < hit.similarity <= 1.0 for hit in found)


def test_only_the_entry_that_disagreed_is_forgotten() -> None:
    cache = SemanticCache()
    cache.set("What is a loan?", "old")
    old = cache.entries[0]
    cache.set("What is a loan?", "new")
    cache._forget(old)
    assert [entry.response for entry in cache.entries] == ["new"]
    new = cache.entries[0]
    cache._forget(new)
    cache._forget(new)
    assert cache.entries == []


def test_a_second_answer_replaces_the_first() -> None:
    cache = SemanticCache()
    cache.set(WEATHER, "sunny")
    cache.set(WEATHER, "rainy")
    assert cache.get(WEATHER) == ("rainy", 1.0, True)
    assert len(cache) == 1


@pytest.mark.parametrize("nothing", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_edge_a_vector_without_a_direction_is_similar_to_nothing(nothing: list[float]) -> None:
    vectors = {WEATHER: nothing, TODAY: nothing, "What is the weather like?": [1.0, 0.0]}
    cache = SemanticCache(embed=vectors.__getitem__)
    cache.set(WEATHER, "sunny")
    assert cache.get(TODAY) is None
    assert cache.get("What is the weather like?") is None
    assert cache.get(WEATHER), "the same text still hits"


def test_cosine_similarity_of_a_zero_vector_is_zero() -> None:
    cache = SemanticCache()
    assert cache._cosine_similarity([0, 0], [1, 0]) == 0
    assert cache._cosine_similarity([2, 0], [5, 0]) == 1
    assert cache._cosine_similarity([1, 0], [1, 1]) == pytest.approx(0.5**0.5)


def test_an_embedder_that_changes_its_size_is_named() -> None:
    sizes = iter([2, 3])
    cache = SemanticCache(embed=lambda text: [1.0] * next(sizes))
    cache.set("one", "1")
    with pytest.raises(ValueError, match="number of dimensions"):
        cache.get("two")


@pytest.mark.parametrize(
    "arguments",
    [
        {"similarity_threshold": 0.0},
        {"similarity_threshold": 1.01},
        {"max_entries": 0},
        {"ttl_s": 0.0},
        {"verify_share": -0.1},
        {"verify_share": 1.1},
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a threshold in"):
        SemanticCache(**arguments)


def test_the_extremes_are_allowed() -> None:
    assert SemanticCache(1.0, max_entries=1, ttl_s=1e-9, verify_share=1.0).similarity_threshold == 1.0


@pytest.mark.parametrize("dimensions", [3, HEAD, HEAD + 1, 400])
@pytest.mark.parametrize("spread", [0.05, 0.4, 3.0])
def test_lookups_equal_a_loop_over_every_row(dimensions: int, spread: float) -> None:
    chance = np.random.default_rng(dimensions)
    centre = chance.standard_normal(dimensions)
    cache = SemanticCache(0.8, max_entries=500)
    rows = []
    for n in range(300):
        rows.append(cache._unit(centre + spread * chance.standard_normal(dimensions)))
        cache._store(str(n), str(n), rows[-1], n % 3)
    for query in [cache._unit(centre), rows[7], cache._unit(-centre), np.zeros(dimensions, np.float32)]:
        found = cache._near(query, 1)
        expected = {n: float(rows[n] @ query) for n in range(300) if n % 3 == 1 and rows[n] @ query >= 0.8}
        assert {row for row, _ in found} == set(expected)
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
        assert all(s == pytest.approx(expected[row], abs=1e-5) for row, s in found)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(("set", "get", "wait"))), max_size=60))
def test_it_equals_a_dictionary_with_expiry_and_eviction(steps: list[tuple[str, str]]) -> None:
    clock = FakeClock()
    cache = SemanticCache(max_entries=3, ttl_s=10.0, embed=one_hot(*"abcdefgh"), clock=clock)
    model: dict[str, float] = {}
    for text, step in steps:
        if step == "wait":
            clock.now += 4
        elif step == "set":
            if text not in model and len(model) == 3:
                del model[next(iter(model))]
            model.pop(text, None)
            model[text] = clock.now + 10
            cache.set(text, text.upper())
        else:
            until = model.pop(text, 0)
            if until > clock.now:
                model[text] = until
            hit = cache.get(text)
            assert (hit is not None) == (until > clock.now)
            assert hit is None or hit.response == text.upper()
        assert len(cache) == len(model)
        for row, entry in enumerate(cache.entries):
            assert isinstance(entry, CacheEntry)
            assert cache._row[entry.key] == row
            assert cache._head[row].argmax() == "abcdefgh".index(entry.message)


def test_memory_grows_by_doubling_and_stops_at_the_limit() -> None:
    cache = SemanticCache(max_entries=150, embed=lambda text: [1.0] * 300)
    sizes = []
    for n in range(160):
        cache.set(str(n), "x")
        sizes.append(len(cache._rest))
    assert sorted(set(sizes)) == [64, 128, 150]
    assert cache._head.dtype == cache._tail.dtype == np.float32
    assert (cache._head.shape[1], cache._tail.shape[1]) == (256, 44)


def test_personal_questions_are_neither_kept_nor_looked_up() -> None:
    cache = SemanticCache(embed=everything_is_similar, guard=lambda a, b: "")
    assert not cache.set("What is my balance?", "5 USD")
    cache.set("What is a balance?", "a scale")
    assert cache.get("What is my balance?") is None
    assert cache.stats.embedded == 1


# ---------------------------------------------------------------- fetch


@pytest.mark.anyio
async def test_fifty_identical_misses_at_once_ask_once() -> None:
    cache = SemanticCache()
    answers = await asyncio.gather(*(cache.fetch(WEATHER, answering("sunny"), NO_SCOPE) for _ in range(50)))
    assert {answer.response for answer in answers} == {"sunny"}
    assert sum(answer.hit is None for answer in answers) == 1
    assert [answer.hit for answer in answers if answer.hit] == [Hit("sunny", 1.0, True)] * 49
    assert (cache.stats.missed, cache.stats.exact, cache.stats.embedded, len(cache)) == (1, 49, 1, 1)
    assert not cache._flights


@pytest.mark.anyio
async def test_fetch_hits_exact_and_similar_text() -> None:
    cache = SemanticCache()
    assert await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE) == Served("sunny")
    assert await cache.fetch(WEATHER, answering(), NO_SCOPE) == Served("sunny", Hit("sunny", 1.0, True))
    similar = await cache.fetch(TODAY, answering(), NO_SCOPE)
    assert similar.hit
    assert not similar.hit.is_exact_match
    assert (cache.stats.missed, cache.stats.exact, cache.stats.similar) == (1, 1, 1)
    assert cache.stats.rates() == pytest.approx({"hit_rate": 2 / 3, "hit_rate_exact_only": 1 / 3})
    assert SemanticCache().stats.rates() == {"hit_rate": 0.0, "hit_rate_exact_only": 0.0}


@pytest.mark.anyio
async def test_questions_in_different_scopes_at_once_are_asked_each() -> None:
    cache = SemanticCache()
    one, two = await asyncio.gather(
        cache.fetch(WEATHER, answering("sunny"), "a"), cache.fetch(WEATHER, answering("rainy"), "b")
    )
    assert (one.response, two.response) == ("sunny", "rainy")


@pytest.mark.anyio
async def test_failure_an_error_reaches_everyone_who_waits_and_is_not_kept() -> None:
    cache = SemanticCache()

    async def broken() -> tuple[str, bool]:
        await asyncio.sleep(0)
        raise ConnectionError("down")

    results = await asyncio.gather(*(cache.fetch(WEATHER, broken, NO_SCOPE) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError] * 3
    assert len(cache) == 0
    assert not cache._flights
    assert (await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE)).hit is None


@pytest.mark.anyio
async def test_whoever_leaves_does_not_stop_it_for_the_others() -> None:
    cache = SemanticCache()
    go = asyncio.Event()

    async def slow() -> tuple[str, bool]:
        await go.wait()
        return "sunny", True

    first, second = (asyncio.create_task(cache.fetch(WEATHER, slow, NO_SCOPE)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go.set()
    assert (await second).response == "sunny"
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.anyio
async def test_when_the_last_one_leaves_the_model_call_is_cancelled_and_the_next_one_starts_anew() -> None:
    cache = SemanticCache()
    cancelled = asyncio.Event()

    async def endless() -> tuple[str, bool]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "", True

    waiting = asyncio.create_task(cache.fetch(WEATHER, endless, NO_SCOPE))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not cache._flights
    assert (await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE)).response == "sunny"
    assert cancelled.is_set()


@pytest.mark.anyio
async def test_answers_that_may_not_be_kept_are_not() -> None:
    cache = SemanticCache()
    await cache.fetch(WEATHER, answering("sun", keep=False), NO_SCOPE)
    await cache.fetch("What is love?", answering("I'm sorry, I can't help with that."), NO_SCOPE)
    await cache.fetch("What is my name?", answering("Ann"), NO_SCOPE)
    assert len(cache) == 0


@pytest.mark.anyio
async def test_failure_without_an_embedding_the_model_answers(caplog: pytest.LogCaptureFixture) -> None:
    def down(text: str) -> list[float]:
        raise ConnectionError("no embeddings today")

    cache = SemanticCache(embed=down)
    assert await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE) == Served("sunny")
    assert len(cache) == 0
    assert "no embeddings today" in caplog.text


@pytest.mark.anyio
async def test_an_async_embedder_works_in_fetch_and_is_refused_by_get() -> None:
    async def embed(text: str) -> list[float]:
        return [1.0]

    cache = SemanticCache(embed=embed)
    await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE)
    assert (await cache.fetch(TODAY, answering(), NO_SCOPE)).hit
    with pytest.raises(TypeError, match="fetch"):
        cache.get("How tall is Everest?")


@pytest.mark.anyio
@pytest.mark.parametrize("question", [WEATHER, TODAY])
async def test_a_hit_that_is_asked_again_and_agrees_stays(question: str) -> None:
    cache = SemanticCache(verify_share=0.5, chance=iter([0.5, 0.499, 0.5]).__next__)
    await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE)
    assert await cache.fetch(question, answering("sunny, quite"), NO_SCOPE) == Served("sunny, quite")
    assert (await cache.fetch(WEATHER, answering("rainy"), NO_SCOPE)).response == "sunny", (
        "a chance of 0.5 is not under 0.5"
    )
    assert (cache.stats.verified, cache.stats.disagreed) == (1, 0)
    assert cache.stats.embedded == (1 if question == WEATHER else 2)


@pytest.mark.anyio
@pytest.mark.parametrize("question", [WEATHER, TODAY])
async def test_an_entry_that_disagrees_is_dropped(question: str) -> None:
    cache = SemanticCache(verify_share=1.0, chance=lambda: 0.0)
    cache.verify_share = 0.0
    await cache.fetch(WEATHER, answering("20 degrees"), NO_SCOPE)
    await cache.fetch("What is love?", answering("20 degrees"), NO_SCOPE)
    cache.verify_share = 1.0
    assert (await cache.fetch(question, answering("5 degrees"), NO_SCOPE)).response == "5 degrees"
    assert (cache.stats.verified, cache.stats.disagreed) == (1, 1)
    cache.verify_share = 0.0
    assert (await cache.fetch("What is love?", answering(), NO_SCOPE)).response == "20 degrees", "another entry stays"
    assert "20 degrees" not in [entry.response for entry in cache.entries if entry.message == WEATHER]


@pytest.mark.anyio
async def test_failure_a_hit_that_cannot_be_verified_is_served(caplog: pytest.LogCaptureFixture) -> None:
    cache = SemanticCache(verify_share=1.0, chance=iter([1.0, 0.0]).__next__)
    await cache.fetch(WEATHER, answering("sunny"), NO_SCOPE)

    async def broken() -> tuple[str, bool]:
        raise ConnectionError("down")

    assert await cache.fetch(WEATHER, broken, NO_SCOPE) == Served("sunny", Hit("sunny", 1.0, True))
    assert "could not be verified" in caplog.text


# ---------------------------------------------------------------- the sweep


@pytest.mark.parametrize(
    ("wrong", "hits", "bound"), [(0, 59, 1 - 0.05 ** (1 / 59)), (0, 300, 1 - 0.05 ** (1 / 300)), (1, 2, 0.95**0.5)]
)
def test_the_bound_is_clopper_and_pearsons(wrong: int, hits: int, bound: float) -> None:
    assert upper_bound(wrong, hits) == pytest.approx(bound)  # where it has a closed form
    assert (upper_bound(0, 0), upper_bound(3, 3)) == (1.0, 1.0)


@pytest.mark.parametrize("hits", [10, 100, 300])
def test_with_no_wrong_hit_the_rule_of_three_holds(hits: int) -> None:
    assert 0.85 * 3 / hits < upper_bound(0, hits) < 3 / hits


def test_with_the_bound_as_rate_so_few_wrong_hits_come_five_times_in_a_hundred() -> None:
    chance = random.Random(1)
    rate = upper_bound(2, 40)
    few = sum(sum(chance.random() < rate for _ in range(40)) <= 2 for _ in range(4000))
    assert few / 4000 == pytest.approx(0.05, abs=0.01)


def test_the_sweep_counts_hits_with_and_without_the_guard() -> None:
    vectors = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 1.0], "0": [0.0, 0.0]}
    pairs = [("a", "a", True), ("a", "b", True), ("a", "b", False), ("a", "c", False), ("a", "0", True)]
    rows = sweep(pairs, vectors.__getitem__, guard=lambda a, b: "", thresholds=(0.7, 0.8))
    assert rows == [Swept(0.7, 2 / 3, 3, 1, upper_bound(1, 3), 3, 1), Swept(0.8, 1 / 3, 1, 0, upper_bound(0, 1), 1, 0)]
    guarded = sweep(pairs, vectors.__getitem__, guard=lambda a, b: "no" if b == "b" else "", thresholds=(0.7,))
    assert guarded == [Swept(0.7, 1 / 3, 1, 0, upper_bound(0, 1), 3, 1)]
    assert sweep([], vectors.__getitem__, thresholds=(0.5,)) == [Swept(0.5, 0.0, 0, 0, 1.0, 0, 0)]


def test_it_picks_the_lowest_bound_then_the_most_hits_then_the_highest_threshold() -> None:
    rows = [Swept(t, 0.5, hits, 0, bound, 9, 1) for t, hits, bound in ((0.5, 9, 0.2), (0.6, 8, 0.1), (0.7, 8, 0.1))]
    assert pick(rows).threshold == 0.7
    assert pick([*rows, Swept(0.4, 0.9, 9, 0, 0.1, 9, 1)]).threshold == 0.4


def test_the_report_on_the_shipped_pairs() -> None:
    lines = report(FILE, OfflineEmbedder()).splitlines()
    assert len(lines) == 17
    assert lines[-1].startswith("take 0.")


# ---------------------------------------------------------------- over HTTP


async def say(http: Any, message: str, key: str = KEYS[0], conversation_id: str | None = None) -> Any:
    body = {"message": message} | ({"conversation_id": conversation_id} if conversation_id else {})
    return await http.post("/v1/chat", json=body, headers={"X-API-Key": key})


def chats(model: OfflineModel) -> int:
    return sum(call.path == "/chat/completions" for call in model.calls)


@pytest.mark.anyio
async def test_over_http_the_chapters_pair_hits_and_paris_does_not() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        first, same, today, paris = [await say(http, text) for text in (WEATHER, WEATHER, TODAY, PARIS)]
        counts = (await http.get("/v1/cache")).json()
    assert [r.headers["cache-status"].split("detail")[0] for r in (first, same, today, paris)] == [
        "semantic; fwd=miss",
        "semantic; hit; ",
        "semantic; hit; ",
        "semantic; fwd=miss",
    ]
    assert "exact 1.00" in same.headers["cache-status"]
    assert "similar 0." in today.headers["cache-status"]
    assert first.json()["response"] == today.json()["response"] != paris.json()["response"]
    assert len({r.json()["conversation_id"] for r in (first, same, today, paris)}) == 4
    assert chats(model) == 2
    assert counts | {"hit_rate": 0} == counts | {"entries": 2, "exact": 1, "similar": 1, "missed": 2, "hit_rate": 0}


@pytest.mark.anyio
async def test_callers_share_only_when_told_to() -> None:
    for shared, asked in ((False, 2), (True, 1)):
        model = OfflineModel()
        async with serving(create_app(SETTINGS, client=client_of(model), shared=shared)) as http:
            await say(http, WEATHER, KEYS[0])
            await say(http, WEATHER, KEYS[1])
        assert chats(model) == asked


@pytest.mark.anyio
async def test_every_entry_has_a_whole_scope() -> None:
    cache = SemanticCache()
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()), cache=cache)) as http:
        await say(http, WEATHER)
    (scope, text) = cache.entries[0].key
    assert isinstance(scope, Scope)
    assert scope.caller.startswith("caller-")
    assert (scope.model, bool(scope.system_prompt), text) == ("gpt-4o-mini", True, "what's the weather")


@pytest.mark.anyio
async def test_a_hit_becomes_part_of_its_conversation_and_later_turns_are_not_cached() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        await say(http, WEATHER)
        hit = await say(http, TODAY)
        again = await say(http, WEATHER, conversation_id=hit.json()["conversation_id"])
    assert again.headers["cache-status"] == "semantic; fwd=bypass"
    history = [m["content"] for m in model.calls[-1].body["messages"] if m["role"] != "system"]
    assert history == [TODAY, hit.json()["response"], WEATHER]


@pytest.mark.anyio
async def test_failure_errors_of_the_model_are_not_kept() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model), cache=SemanticCache())) as http:
        model.next(Fault(status=500))
        assert (await say(http, WEATHER)).status_code == 502
        assert (await say(http, WEATHER)).status_code == 200
    assert chats(model) == 2


@pytest.mark.anyio
async def test_failure_without_embeddings_the_service_answers() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        model.next(Fault(status=500))  # the embedding
        assert (await say(http, WEATHER)).status_code == 200
        assert (await http.get("/v1/cache")).json()["entries"] == 0


@pytest.mark.anyio
async def test_fifty_identical_requests_at_once_cost_one_model_call() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        answers = await asyncio.gather(*(say(http, WEATHER) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert chats(model) == 1


@pytest.mark.anyio
async def test_abuse_the_cache_needs_a_key() -> None:
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel())), key=None) as http:
        assert (await http.get("/v1/cache")).status_code == 401


@pytest.mark.anyio
async def test_starting_twice_works_offline() -> None:
    app = create_app(replace(SETTINGS, offline=True))
    for _ in range(2):
        async with serving(app) as http:
            await say(http, WEATHER)
            assert "hit" in (await say(http, TODAY)).headers["cache-status"]


# ---------------------------------------------------------------- what it is worth, and the script


@pytest.mark.anyio
async def test_the_improvement_is_counted_from_usage_net_of_embeddings() -> None:
    settings = replace(SETTINGS, offline=True)
    trace = [(WEATHER, 1), (TODAY, 1), (PARIS, 2)]
    times = iter([5.0, 7.0])
    free = await measure(settings, SemanticCache(), trace, clock=lambda: next(times))
    paid = await measure(settings, SemanticCache(), trace, embedder="text-embedding-3-small")
    blind = await measure(settings, SemanticCache(embed=everything_is_similar, guard=lambda a, b: ""), trace)
    assert (free.asked, free.hits, free.wrong) == (3, 1, 0)
    assert (blind.hits, blind.wrong) == (2, 1)
    assert Decimal("0.001") > free.saved_usd > paid.saved_usd > 0
    words_and_signs = 4 + 5 + 6
    assert free.saved_usd - paid.saved_usd == cost_usd("text-embedding-3-small", words_and_signs)
    assert free.elapsed_ms == 2000.0
    with pytest.raises(AttributeError):
        free.hits = 2  # type: ignore[misc]


@pytest.mark.anyio
async def test_the_app_closes_the_client_that_it_made_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    given, made = client_of(OfflineModel()), client_of(OfflineModel())
    monkeypatch.setattr("exercise_2_19_6_solution.new_client", lambda settings: made)
    async with serving(create_app(SETTINGS, client=given)):
        pass
    assert (given.is_closed(), made.is_closed()) == (False, False)
    async with serving(create_app(SETTINGS)):
        assert not made.is_closed()
    assert made.is_closed()


def test_the_script_shows_a_hit_and_what_the_cache_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.startswith("Exercise 2 (19.6): ")
    assert "hit; detail=" in out
    assert "12/24 hits (50%), 0 wrong" in out
    assert "4/24 hits (17%), 0 wrong" in out
    assert re.findall(r"saved ([\d.]+) USD in 1,000 such traces", out) == ["0.043", "0.169", "0.129"]


def test_the_script_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--sweep", str(FILE)]) == 0
    assert "take 0." in capsys.readouterr().out
