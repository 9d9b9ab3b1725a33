"""The truth about the chapter: which exercises are built, and that every bullet of those has a check."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.chapter import EXERCISES, FOLDER, ROOT, Exercise, NoSuchExercise, find, progress
from tests.kit.contract import contract

TEXT = Path(os.environ.get("CHAPTER", ROOT.parent / "shared" / "chapter_19.md"))
BUILT = [exercise for exercise in EXERCISES if exercise.built]


def bare(text: str) -> str:
    """Return a sentence without its Markdown."""
    return text.replace("`", "").strip()


def test_every_exercise_is_built() -> None:
    assert [exercise.id for exercise in EXERCISES if not exercise.built] == []


def test_there_are_21_exercises_and_76_bullets() -> None:
    assert len(EXERCISES) == 21
    assert sum(len(exercise.bullets) for exercise in EXERCISES) == 76
    assert progress().startswith("21 of 21 exercises, ")


@pytest.mark.parametrize("exercise", BUILT, ids=lambda exercise: exercise.id)
def test_every_bullet_has_a_check_in_the_chapters_own_words(exercise: Exercise) -> None:
    checks = contract(exercise.id)
    for number, bullet in enumerate(exercise.bullets, 1):
        titles = [check.title for check in checks if check.chapter == f"{exercise.id} bullet {number}"]
        assert bare(bullet) in titles, f"no check is called {bare(bullet)!r}"
        assert all(title.startswith(bare(bullet)) for title in titles)
    assert {check.chapter for check in checks} <= {
        exercise.id,
        *(f"{exercise.id} bullet {n}" for n in range(1, len(exercise.bullets) + 1)),
    }
    assert len({check.id for check in checks}) == len(checks)


@pytest.mark.parametrize("exercise", BUILT, ids=lambda exercise: exercise.id)
def test_every_file_that_the_chapter_names_is_there(exercise: Exercise) -> None:
    assert [name for name in exercise.files if not (FOLDER / name).is_file()] == []


@pytest.mark.parametrize("name", ["19.2.3", "3_19_2", "exercise_3_19_2_solution.py", "a/b/exercise_3_19_2_solution.py"])
def test_an_exercise_has_three_names(name: str) -> None:
    assert find(name).id == "19.2.3"


@pytest.mark.parametrize("name", ["", "19.2", "19.8.1", "4_19_2", "chapter"])
def test_a_name_that_is_none_says_which_there_are(name: str) -> None:
    with pytest.raises(NoSuchExercise, match=r"19\.1\.1.*19\.7\.3"):
        find(name)


def test_the_list_is_the_chapters_own() -> None:
    if not TEXT.is_file():
        reason = f"the chapter's text is not beside this checkout ({TEXT.name}; CHAPTER=... says where it is)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    text = TEXT.read_text(encoding="utf-8").partition("## Practice Exercises")[2]
    found: dict[str, tuple[str, list[str]]] = {}
    section = number = ""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if match := re.match(r"### Section (19\.\d)", line):
            section = match[1]
        elif match := re.match(r"\*\*Exercise (\d): (.*)\*\*", line):
            number = f"{section}.{match[1]}"
            found[number] = match[2], []
        elif line.startswith("- ") and not fenced:
            found[number][1].append(line[2:])
    assert found == {e.id: (e.heading, list(e.bullets)) for e in EXERCISES}
    named = set(re.findall(r"`part_5_production/chapter_19_deployment/(exercise_\S+)`", text))
    assert named <= {name for exercise in EXERCISES for name in exercise.files}


def test_the_chapter_folder_starts_from_what_the_book_prints() -> None:
    if not TEXT.is_file():
        pytest.skip("the chapter's text is not beside this checkout")
    blocks = re.findall(r"```\w*\n(.*?)```", TEXT.read_text(encoding="utf-8"), re.DOTALL)
    requirements = next(block for block in blocks if block.startswith("# requirements.txt"))
    ours = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    printed, _, added = ours.partition("numpy==")
    assert printed == requirements
    assert re.fullmatch(r"[\d.]+  # not in the book's list.*\n", added)
    example = next(block for block in blocks if block.startswith("# .env\n"))
    assert (FOLDER / ".env.example").read_text(encoding="utf-8") == example
