"""Targets that are read and not run: how they are found, and what is said when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit import report
from tests.kit.contract import Check, Form, Missed, Verdict, form
from tests.kit.files import Files, Place
from tests.kit.target import CannotRun, Target

NAMES = ("exercise_1_Dockerfile", "Dockerfile")


def files(path: Path) -> Files:
    return Files(Target.parse(str(path), form=Form.FILES))


def test_a_file_that_is_named_is_the_one(tmp_path: Path) -> None:
    for name in ("Dockerfile", "exercise_1_Dockerfile", "other.Dockerfile"):
        (tmp_path / name).touch()
    assert files(tmp_path / "other.Dockerfile").find("Dockerfile", NAMES, "dockerfile").name == "other.Dockerfile"
    assert files(tmp_path).find("Dockerfile", NAMES, "dockerfile").name == "exercise_1_Dockerfile"


def test_a_file_of_another_kind_stands_for_its_folder(tmp_path: Path) -> None:
    (tmp_path / "agent.py").touch()
    (tmp_path / "my.dockerfile").touch()
    assert files(tmp_path / "agent.py").find("Dockerfile", NAMES, "dockerfile").name == "my.dockerfile"


def test_failure_none_and_several_cannot_be_judged(tmp_path: Path) -> None:
    (tmp_path / "agent.py").touch()
    with pytest.raises(CannotRun, match=r"no Dockerfile in .*agent\.py"):
        files(tmp_path).find("Dockerfile", NAMES, "dockerfile")
    (tmp_path / "a.Dockerfile").touch()
    (tmp_path / "b.Dockerfile").touch()
    with pytest.raises(CannotRun, match=r"which is your Dockerfile\?.*a\.Dockerfile, b\.Dockerfile"):
        files(tmp_path).find("Dockerfile", NAMES, "dockerfile")
    with pytest.raises(CannotRun, match="no such file or folder"):
        Target.parse(str(tmp_path / "nothing"), form=Form.FILES)


def test_edge_looking_upwards_ends_at_the_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / ".gitignore").touch()
    (tmp_path / "repo" / ".git").mkdir()
    assert files(inner).nearest(".gitignore") is None
    (tmp_path / "repo" / ".gitignore").touch()
    assert files(inner).nearest(".gitignore") == tmp_path / "repo" / ".gitignore"


def test_the_report_shows_the_line_of_the_file() -> None:
    check = Check("root", "Add a user", "19.1.1 bullet 3", frozenset(("files",)), ("", "", ""), lambda app: None)
    place = Place(Path("/x/Dockerfile"), 7, "USER root")
    missed = Missed(when="it runs", expected="another user", came="USER root", seen=place)
    assert report.block(Verdict(check, "missed", missed), replay="http://x") == [
        "      when      it runs",
        "      file      Dockerfile, line 7: USER root",
        "      expected  another user",
        "      came      USER root",
        "      chapter   section 19.1, exercise 1, bullet 3",
    ]
    assert form([check]) is Form.FILES
    assert place.came() == "USER root"
    assert Place(Path("Dockerfile")).sent() == "Dockerfile"
