"""What a learner types beside a plain check: hints, watching, what is remembered, and names that are not ASCII."""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.__main__ import main
from tests.chapter import EXERCISES, FOLDER, ROOT, Exercise
from tests.kit import remembered, watching
from tests.kit.contract import Check, Verdict, contract, worth_thinking

CHECK = Check("id", "title", "19.2.3", frozenset({"http"}), ("", "", ""), lambda app: None)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_every_check_has_three_different_hints_and_every_exercise_a_last_thought(exercise: Exercise) -> None:
    for check in contract(exercise.id):
        assert len(check.hints) == 3 == len({hint.strip() for hint in check.hints}), check.id
        assert all(len(hint) >= 10 and hint.isascii() for hint in check.hints), check.id
    thought = worth_thinking(exercise.id)
    assert thought.startswith(("ours", "a test")) and 40 < len(thought) < 200 and thought.isascii()


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_hints_come_in_levels_and_end_at_the_reference(exercise: Exercise, capsys: pytest.CaptureFixture[str]) -> None:
    for level in (1, 2, 3):
        assert main(["hint", exercise.id, "--level", str(level)]) == 0
        said = capsys.readouterr().out
        assert all(
            check.hints[level - 1].encode("ascii", "backslashreplace").decode() in said
            for check in contract(exercise.id)
        )
        assert (exercise.path.name in said) is (level == 3)


def test_what_is_reached_is_remembered_and_shown(tmp_path: Path) -> None:
    file = tmp_path / ".progress.json"
    verdicts = [Verdict(CHECK, "met"), Verdict(CHECK, "missed")]
    remembered.remember("19.2.3", verdicts, file)
    remembered.remember("19.1.1", verdicts[:1], file)
    assert remembered.reached(file) == {"19.1.1": (1, 1), "19.2.3": (1, 2)}
    assert [remembered.in_words(id, remembered.reached(file)) for id in ("19.1.1", "19.2.3", "19.4.1")] == [
        "yours: all met", "yours: 1 of 2 met", "",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == [".progress.json"]


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"19.2.3": 1}', '{"19.2.3": ["a", "b"]}'])
def test_a_damaged_memory_is_no_memory(damaged: str, tmp_path: Path) -> None:
    file = tmp_path / ".progress.json"
    file.write_text(damaged, encoding="utf-8")
    assert remembered.reached(file) == {}
    remembered.remember("19.2.3", [Verdict(CHECK, "met")], file)
    assert remembered.reached(file) == {"19.2.3": (1, 1)}


def test_the_memory_is_kept_out_of_git() -> None:
    assert "/.progress.json" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_watching_checks_after_every_change_and_ends_at_ctrl_c(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "my_app.py"
    mine.write_text("1", encoding="utf-8")
    (tmp_path / "__pycache__").mkdir()
    rounds = []
    happens: list[Callable[[], object]] = [
        lambda: (tmp_path / "__pycache__" / "my_app.cpython.pyc").write_text("not watched", encoding="utf-8"),
        lambda: mine.write_text("22", encoding="utf-8"),
        lambda: None,
        lambda: (tmp_path / "beside.py").write_text("new", encoding="utf-8"),
        lambda: (tmp_path / "beside.py").unlink(),
    ]

    def pause(seconds: float) -> None:
        if not happens:
            raise KeyboardInterrupt
        happens.pop(0)()

    def check() -> int:
        rounds.append(mine.read_text(encoding="utf-8"))
        return 1

    assert watching.watch(mine, check, pause=pause) == 1
    assert rounds == ["1", "22", "22", "22"]
    assert "Ctrl-C" in capsys.readouterr().out


def test_an_address_cannot_be_watched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "19.2.3", "--mine", "http://127.0.0.1:9", "--watch"]) == 2
    assert "MINE=my_app.py" in capsys.readouterr().err


@pytest.fixture(scope="module")
def far_away(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository under a name with spaces and letters that are not ASCII."""
    copy = tmp_path_factory.mktemp("far") / "Zoë Müller 李" / "my agents"
    left = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "attempts", "data", "benches")
    shutil.copytree(ROOT, copy, ignore=left)
    return copy


POSIX_ONLY = (
    "fork", "killpg", "setsid", "getpgid", "getuid", "geteuid", "getpriority", "nice", "mkfifo", "SIGKILL", "SIGALRM",
    "SIGHUP", "SIGUSR1", "add_signal_handler", "fcntl", "resource", "pwd", "grp", "termios", "sched_getaffinity",
)  # fmt: skip


def test_no_script_and_nothing_shared_needs_posix() -> None:
    for path in (*FOLDER.glob("*.py"), *(ROOT / "shared").glob("*.py"), ROOT / "tests" / "__main__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("os", "signal", "loop")
        }
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert used.isdisjoint(POSIX_ONLY), (path.name, used & set(POSIX_ONLY))


def test_a_check_works_where_there_is_no_fork(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, attributes in ((os, ("fork", "killpg", "setsid")), (signal, ("SIGKILL",))):
        for attribute in attributes:
            monkeypatch.delattr(module, attribute, raising=False)
    mine = ROOT / "tests" / "attempts" / "19.2.3" / "accepted" / "limits_storage_dict.py"
    assert main(["check", "19.2.3", "--mine", str(mine)]) == 0
    assert "8 met" in capsys.readouterr().out


def test_signals_are_not_checked_where_windows_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for attribute in ("fork", "killpg", "setsid"):
        monkeypatch.delattr(os, attribute, raising=False)
    mine = ROOT / "tests" / "attempts" / "19.5.3" / "accepted" / "the_chapters_pattern.py"
    assert main(["check", "19.5.3", "--mine", str(mine)]) == 2
    assert "6 not checked" in capsys.readouterr().out


def typed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "OFFLINE", "API_KEY"))}
    return subprocess.run(
        [sys.executable, "-m", "tests", *arguments], cwd=folder, check=False, capture_output=True, text=True,
        encoding="cp1252",
        env=env | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "cp1252"},  # as a Windows console has it
    )  # fmt: skip


def test_it_runs_in_a_folder_with_spaces_and_letters_that_are_not_ascii(far_away: Path) -> None:
    ran = typed(far_away, "run", "19.2.3")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "429" in ran.stdout


def test_it_checks_there_too_and_remembers(far_away: Path) -> None:
    mine = far_away / "größte lösung 李.py"
    shutil.copy(ROOT / "tests" / "attempts" / "19.2.3" / "accepted" / "limits_storage_dict.py", mine)
    ran = typed(far_away, "check", "19.2.3", "--mine", mine.name)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "8 met" in ran.stdout and "worth thinking about: ours" in ran.stdout
    assert "yours: all met" in typed(far_away, "list").stdout
