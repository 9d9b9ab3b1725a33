"""The guard of 19.6.2 piece by piece: the word file, stems, what a question is reduced to, the offline vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from question_guard import (
    MAX_WORDS,
    Meaning,
    OfflineEmbedder,
    differ,
    is_storable,
    normalise,
    read,
    stem,
    vocabulary,
)

WORD_FILE = """# a comment before all
[drop]
a
[rewrites]
# a comment
x+ => y
no rule
[frames]
how to: how do i, what => if
[same]
buy: purchase, get a hold of
"""


def test_the_word_file_is_read_as_its_comments_say(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(WORD_FILE, encoding="utf-8")
    known = vocabulary(path)
    assert [(pattern.pattern, new) for pattern, new in known.rewrites] == [("x+", "y")]
    assert known.tables["frames"] == {("how", "do", "i"): ("how", "to"), ("what", "=>", "if"): ("how", "to")}
    assert known.tables["same"] == {("buy",): ("buy",), ("purchas",): ("buy",), ("get", "hold", "of"): ("buy",)}


def test_no_wording_is_longer_than_what_is_looked_for() -> None:
    assert max(len(words) for table in vocabulary().tables.values() for words in table) == 8


def test_what_was_read_does_not_change() -> None:
    for value, name in ((vocabulary(), "tables"), (read("safe"), "asks")):
        with pytest.raises(AttributeError):
            setattr(value, name, "")
    assert read.cache_info().maxsize == normalise.cache_info().maxsize == 4096


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [
        ("king", "king"), ("sing", "sing"), ("add", "add"), ("use", "use"), ("make", "mak"), ("running", "run"),
        ("stopping", "stop"), ("buzz", "buz"), ("miss", "miss"), ("class", "class"), ("agree", "agr"), ("10", "10"),
    ],
)  # fmt: skip
def test_edge_short_words_keep_what_only_looks_like_an_ending(word: str, stemmed: str) -> None:
    assert stem(word) == stemmed


def test_edge_the_longest_message_that_is_read() -> None:
    longest = " ".join(f"{number}" for number in range(100, 100 + MAX_WORDS))
    assert MAX_WORDS == 64
    assert not read(longest).long
    longer = read(f"{longest} 999")
    assert (longer.long, longer.words, longer.negations) == (True, (), 0)
    assert differ(f"{longest} 999", f"{longest} 999") == ""
    assert differ(f"{longest} 999", "999") == differ("999", f"{longest} 999") == "too long to compare"


@pytest.mark.parametrize(("question", "negations"), [("safe", 0), ("is it not safe", 1), ("not never safe", 2)])
def test_negations_are_counted(question: str, negations: int) -> None:
    assert read(question).negations == negations


def test_links_and_negations_are_not_stemmed_and_a_link_is_for_the_next_word_alone() -> None:
    assert "towards" in read("road towards Rome").flow
    assert read("nothing inside").flow == ("nothing", "inside")
    roles = dict(read("flights from Oslo Bergen").roles)
    assert (roles["oslo"], roles["bergen"]) == ("from", "")


# Vectors are stored: what was written last week must fit what is asked today. Places and signs follow from
# blake2b of the word; weights: a word 1 + ln(times), a light word and the kind of question 0.3, a link 0.15.
@pytest.mark.parametrize(
    ("question", "places"),
    [
        ("aspirin", {152537: -0.5, 293500: -0.5, 668687: -0.5, 1011151: 0.5}),
        (
            "loan loan rate",
            {87228: -0.4305, 221390: 0.4305, 427437: -0.2543, 478380: -0.4305, 611899: -0.2543, 688364: -0.2543,
             733592: 0.2543, 930184: -0.4305},
        ),
        (
            "how loan",
            {4480: 0.1437, 87228: -0.4789, 221390: 0.4789, 478380: -0.4789, 669007: -0.1437, 750759: -0.1437,
             788058: 0.1437, 930184: -0.4789},
        ),
        (
            "quick loan",
            {87228: -0.4789, 221390: 0.4789, 403892: 0.1437, 478380: -0.4789, 693696: -0.1437, 714757: 0.1437,
             930184: -0.4789, 962472: -0.1437},
        ),
        ("", {}),
    ],
)  # fmt: skip
def test_an_offline_vector_is_the_same_everywhere_and_for_ever(question: str, places: dict[int, float]) -> None:
    vector = OfflineEmbedder(1 << 20)(question)
    assert {int(i): round(float(vector[i]), 4) for i in np.flatnonzero(vector)} == places


def test_edge_only_a_capital_at_the_start_is_set_aside() -> None:
    assert [normalise(text) for text in ("Is IDs?", "A US one", "ABc")] == ["is IDs", "a US one", "ABc"]


def test_edge_a_refusal_counts_in_the_first_200_characters() -> None:
    refusal = "I am sorry"
    assert not is_storable("What is a loan?", "x" * (199 - len(refusal)) + " " + refusal)
    assert is_storable("What is a loan?", "x" * (200 - len(refusal)) + " " + refusal)


def test_what_is_asked_counts_more_than_that_it_is_asked_politely() -> None:
    assert read("can anyone remember who won").asks == "who"
    assert read("who can remember when it was").asks == "who"


def test_an_empty_meaning_denies_nothing() -> None:
    assert Meaning().negations == 0
