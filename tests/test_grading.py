"""Grading a class: what is found, what is contained, what is written, and what is not done twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.__main__ import main as command
from tests.chapter import ROOT
from tests.kit.child import connections_to_the_model
from tests.kit.grading import grade as grading
from tests.kit.grading import isolation
from tests.kit.grading.classroom import HOSTILE, make_class, right_solutions, starting_with, students
from tests.kit.grading.isolation import Isolation, best
from tests.kit.grading.layout import read_layout
from tests.kit.grading.matrix import cells
from tests.kit.grading.results import blank
from tests.kit.grading.submissions import Submission, take_in

NAME = "exercise_3_19_2_solution.py"


def read(folder: Path, *names: str) -> Any:
    return json.loads(folder.joinpath("_results", *names).read_text(encoding="utf-8"))


def handed_in(folder: Path, stage: Path) -> list[Submission]:
    return take_in(folder, stage)[0]


def archive(path: Path, entries: dict[str, str], mode: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, text in entries.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            out.writestr(entry, text)


# ---------------------------------------------------------------- taking in


@pytest.mark.parametrize(
    ("entries", "mode", "words"),
    [
        ({"../evil.py": "x"}, 0, "reaches outside itself: ../evil.py"),
        ({"a/../../evil.py": "x"}, 0, "reaches outside itself"),
        ({"/etc/evil": "x"}, 0, "reaches outside itself"),
        ({"..\\evil.py": "x"}, 0, "reaches outside itself"),
        ({"C:\\evil.py": "x"}, 0, "reaches outside itself"),
        ({NAME: "/etc/passwd"}, stat.S_IFLNK | 0o777, "holds a link"),
        ({"zeros.bin": "0" * 30_000_000}, 0, "is a bomb: zeros.bin grows to 28 MB"),
        ({f"{n}.txt": "" for n in range(5_001)}, 0, "more than 5000 files"),
    ],
    ids=["up", "in and up", "absolute", "backslash", "drive", "link", "bomb", "many"],
)
def test_a_dangerous_archive_is_refused_and_says_why(
    tmp_path: Path, entries: dict[str, str], mode: int, words: str
) -> None:
    archive(tmp_path / "class" / "eve.zip", entries, mode)
    (eve,) = handed_in(tmp_path / "class", tmp_path / "stage")
    assert words in eve.refused
    assert not (tmp_path / "evil.py").exists()
    assert not list(eve.folder.iterdir())


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "eve.zip").write_text("not a zip")
    (eve,) = handed_in(tmp_path / "class", tmp_path / "stage")
    assert "cannot be read" in eve.refused


def test_a_link_in_a_folder_is_left_out_and_named(tmp_path: Path) -> None:
    eve = tmp_path / "class" / "eve"
    eve.mkdir(parents=True)
    (eve / NAME).symlink_to("/etc/passwd")
    (eve / "all").symlink_to("/")
    (submission,) = handed_in(tmp_path / "class", tmp_path / "stage")
    assert submission.notes == ["left out: all is a link", f"left out: {NAME} is a link"]
    assert not list(submission.folder.rglob("*"))


def test_every_student_has_results_of_their_own_even_where_case_does_not_count(tmp_path: Path) -> None:
    for name in ("ANNA", "anna", "Åsa Björk", "...", "a|b", "=1+1"):
        (tmp_path / "class" / name).mkdir(parents=True)
    archive(tmp_path / "class" / "anna.zip", {"x": ""})
    submissions, others = take_in(tmp_path / "class", tmp_path / "stage")
    assert others == ["..."]
    keys = [submission.key.casefold() for submission in submissions]
    assert len(set(keys)) == 6
    assert "Åsa_Björk" in [submission.key for submission in submissions]
    assert all(key.strip(".") and not set(key) & set('/\\:|=<>"?*') for key in keys)


def test_environments_and_caches_are_no_part_of_a_submission(tmp_path: Path) -> None:
    for inside in (".venv/lib", "__MACOSX", "node_modules", "app"):
        folder = tmp_path / "class" / "eve" / inside
        folder.mkdir(parents=True)
        (folder / NAME).write_text("app = 1")
    (eve,) = handed_in(tmp_path / "class", tmp_path / "stage")
    assert read_layout(eve.folder).targets == {"19.2.3": f"app/{NAME}"}


def test_an_archive_alone_in_a_folder_is_unpacked_too(tmp_path: Path) -> None:
    archive(tmp_path / "class" / "Eve_1234_file" / "my work.zip", {f"chapter/{NAME}": "app = 1"})
    archive(tmp_path / "class" / "mallory" / "my work.zip", {"../evil.py": "x"})
    eve, mallory = handed_in(tmp_path / "class", tmp_path / "stage")
    assert read_layout(eve.folder).targets == {"19.2.3": f"chapter/{NAME}"}
    assert eve.notes == ["unpacked: my work.zip"]
    assert "reaches outside itself" in mallory.refused


# ---------------------------------------------------------------- layouts


def test_two_solutions_of_one_exercise_are_ambiguous(tmp_path: Path) -> None:
    for place in ("draft", "final"):
        (tmp_path / place).mkdir()
        (tmp_path / place / NAME.title()).write_text("")
    layout = read_layout(tmp_path)
    assert layout.ambiguous == {"19.2.3": [f"draft/{NAME.title()}", f"final/{NAME.title()}"]}
    assert not layout.targets


def test_submission_toml_says_which_file_is_which(tmp_path: Path) -> None:
    (tmp_path / "work" / "docker").mkdir(parents=True)
    (tmp_path / "work" / "main.py").write_text("")
    (tmp_path / "work" / NAME).write_text("")
    (tmp_path / "work" / "submission.toml").write_text(
        '[exercises]\n"19.2.3" = "main.py:make"\n3_19_5 = "main.py"\n"19.1.1" = "docker"\n'
        '"19.2.2" = "gone.py"\n"19.2.1" = "../../../etc/passwd"\n"99.1" = "main.py"\n"19.4.1" = 3\n'
    )
    layout = read_layout(tmp_path)
    assert layout.targets == {"19.2.3": "work/main.py:make", "19.5.3": "work/main.py", "19.1.1": "work/docker"}
    assert set(layout.broken) == {"19.2.2", "19.2.1", "19.4.1"}
    assert layout.notes == ["work/submission.toml names no exercise of the chapter: 99.1"]


@pytest.mark.parametrize("text", ["nonsense", "[exercises", "exercises = 3", "[other]\n"])
def test_a_submission_toml_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "submission.toml").write_text(text)
    (tmp_path / NAME).write_text("")
    layout = read_layout(tmp_path)
    assert layout.targets == {"19.2.3": NAME}
    assert "submission.toml cannot be read" in layout.notes[0]


def test_of_the_exercises_asked_for_it_is_said_which_are_not_handed_in(tmp_path: Path) -> None:
    for name in (NAME, "exercise_2_19_2_solution.py"):
        (tmp_path / "class" / "eve").mkdir(parents=True, exist_ok=True)
        (tmp_path / "class" / "eve" / name).write_text("")
    (tmp_path / "class" / "adam").mkdir()
    (adam, eve), _ = take_in(tmp_path / "class", tmp_path / "stage")
    result = blank(eve, read_layout(eve.folder), "plain limits", ("19.2.3", "19.4.1"))
    assert cells(result) == {"19.2.3": "pending", "19.4.1": "not handed in"}
    assert {check["status"] for check in result["exercises"][1]["checks"]} == {"could not run"}
    assert set(cells(blank(eve, read_layout(eve.folder), "plain limits"))) == {"19.2.2", "19.2.3"}
    assert blank(adam, read_layout(adam.folder), "plain limits", ("19.2.3",))["status"] == "empty"


# ---------------------------------------------------------------- a small class

SMALL = ("wrong_2", "hostile_deletes_its_own_folder", "unknown layout (no chapter names)", "empty",
         "two solutions of one exercise", "=SUM(A1) | <b>Jürgen 李", "slip.zip")  # fmt: skip


def statuses(folder: Path, student: str) -> list[str]:
    (exercise,) = read(folder, student, "results.json")["exercises"]
    return [check["status"] for check in exercise["checks"]]


def test_a_small_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "the class"
    make_class(folder, SMALL)
    starting_with(HOSTILE["writes_the_verdict"] + HOSTILE["leaves_a_daemon"])(folder / "eve")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert command(["grade", str(folder), "--jobs", "2"]) == 0
    out = capsys.readouterr().out
    assert "submissions: 8, solutions to grade: 4, unchanged since they were graded: 0" in out
    assert "Most often missed (1 of 8 students): 19.1.1" in out
    what_is_written(folder)
    what_is_contained(folder)
    what_is_safe_to_read(folder)
    assert (tmp_path / "summary.md").read_bytes() == (folder / "_results" / "matrix.md").read_bytes()
    assert not running(folder)
    assert {path.name for path in folder.iterdir()} == {*SMALL, "eve", "_results"}
    assert not list((folder / "_results").rglob("*.part"))
    what_is_not_done_twice(folder, capsys)


def what_is_written(folder: Path) -> None:
    assert set(statuses(folder, "SUM_A1_b_Jürgen_李")) == {"met"}
    (wrong,) = read(folder, "wrong_2", "results.json")["exercises"]
    (missed,) = (check for check in wrong["checks"] if check["status"] == "missed")
    assert missed["facts"]["expected"] and missed["facts"]["came"]
    (removed,) = read(folder, "hostile_deletes_its_own_folder", "results.json")["exercises"]
    assert {check["status"] for check in removed["checks"]} == {"could not run"}
    assert "it removed its own files" in removed["reason"]
    assert read(folder, "empty", "results.json")["status"] == "empty"
    matrix = (folder / "_results" / "matrix.md").read_text(encoding="utf-8")
    for words in ("no file has a name of the chapter", "reaches outside itself", "which one? Say so in submission"):
        assert words in matrix


def what_is_contained(folder: Path) -> None:
    (eve,) = read(folder, "eve", "results.json")["exercises"]
    assert {check["status"] for check in eve["checks"]} == {"met"}  # judged for what it is: a right solution
    if best().namespaces:
        told = ("left processes behind", "tried to open (work)/_results/results.json", "tried to open /proc/1/fd/1")
        assert set(told) <= set(eve["notes"])


def what_is_safe_to_read(folder: Path) -> None:
    with (folder / "_results" / "matrix.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    assert "'=SUM(A1) | <b>Jürgen 李" in [row["student"] for row in rows]
    matrix = (folder / "_results" / "matrix.md").read_text(encoding="utf-8")
    assert "| \\=SUM(A1) \\| &lt;b&gt;Jürgen 李 |" in matrix


def what_is_not_done_twice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in (folder / "_results").rglob("*") if path.is_file()}
    with (folder / "wrong_2" / "my 19.1.1" / "agent.py").open("a", encoding="utf-8") as file:
        file.write("\n# one more line\n")
    assert command(["grade", str(folder)]) == 0
    assert "submissions: 8, solutions to grade: 1, unchanged since they were graded: 3" in capsys.readouterr().out
    changed = {p.parent.name for p, content in before.items() if p.read_bytes() != content}
    assert changed == {"wrong_2"}


def test_the_invented_class_has_thirty_students() -> None:
    assert len(students()) == 30


def test_a_class_that_is_none_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["grade", str(tmp_path / "gone")]) == 2
    assert command(["grade", str(tmp_path)]) == 2
    assert "holds no submission" in capsys.readouterr().out


# ---------------------------------------------------------------- containment


def confined(code: str, tmp_path: Path) -> str:
    """Run code as a submission would be, in both layers."""
    (tmp_path / "work").mkdir()
    inner = [sys.executable, str(isolation.HERE / "sandbox.py"), json.dumps(isolation._inner(tmp_path / "work"))]
    outer = [sys.executable, str(isolation.HERE / "sandbox.py"), json.dumps(isolation._outer(tmp_path / "work", ROOT))]
    run = subprocess.run(
        [*outer, *inner, sys.executable, "-c", code], capture_output=True, text=True, env=isolation.environment()
    )
    return run.stdout + run.stderr


@pytest.mark.skipif(not best().namespaces, reason="no namespaces here: " + best().words)
@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import socket; socket.create_connection(('203.0.113.7', 80), 3)", "Network is unreachable"),
        ("import socket; socket.create_connection(('8.8.8.8', 53), 3)", "Network is unreachable"),
        (f"import os; os.listdir({str(ROOT / 'tests' / 'contracts')!r})", "No such file"),
        ("open('/usr/evil', 'w')", "Read-only file system"),
        ("import os; print(os.listdir('/proc/1/') and len([p for p in os.listdir('/proc') if p.isdigit()]))", "1\n"),
        ("import os; print(sorted(n for n in os.environ if 'KEY' in n or 'TOKEN' in n))", "[]\n"),
        ("import ctypes; print(ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None))", "-1\n"),
        ("bytearray(4 * 1024**3)", "MemoryError"),
        ("import resource; print(resource.getrlimit(resource.RLIMIT_NPROC)[1])", "256\n"),
    ],
    ids=["network", "dns", "tests", "system", "processes", "keys", "mount", "memory", "limit"],
)
def test_the_sandbox_holds(tmp_path: Path, code: str, words: str) -> None:
    assert words in confined(code, tmp_path)


def test_counting_connections_takes_no_descriptor() -> None:
    before = len(list(Path("/dev/fd").iterdir()))  # a thousand of them, or 256, are all that a program has
    assert connections_to_the_model() == 0
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_plain_limits_end_what_has_left_its_session(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    mark = f"open({str(note)!r}, 'w').write(str(os.getpid()))\n        while True:"
    code = HOSTILE["leaves_a_daemon"].replace("while True:", mark)
    limits = json.dumps({"limits": {}})
    waits = f"\nwhile not os.path.exists({str(note)!r}):\n    time.sleep(0.01)\n"
    command = [sys.executable, str(isolation.HERE / "plain.py"), limits, sys.executable, "-c", code + waits]
    assert subprocess.run(command, check=False).returncode == 0
    assert not Path(f"/proc/{note.read_text()}").exists()


def running(folder: Path) -> list[str]:
    """Return the commands that name a folder."""
    commands = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in commands.splitlines() if str(folder) in line]


def eventually(holds: Callable[[], bool]) -> bool:
    """Look again until it holds; False when it does not within a minute."""
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    return holds()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_grader_that_is_stopped_leaves_nothing_running_and_nothing_decided(
    tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "class").mkdir()
    starting_with(HOSTILE["endless_loop"])(tmp_path / "class" / "eve")
    start = [sys.executable, "-m", "tests", "grade", str(tmp_path / "class")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(start, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment) as grader:
        assert eventually(lambda: any("grading.worker" in line for line in running(tmp_path)))
        grader.send_signal(how)
    assert grader.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    assert eventually(lambda: not running(tmp_path))
    (exercise,) = read(tmp_path / "class", "eve", "results.json")["exercises"]
    assert exercise["status"] == "pending"
    if how == signal.SIGTERM:
        assert not list(tmp_path.glob("grade-*"))


def test_a_worker_that_hears_no_signal_ends_all_the_same() -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('.', flush=True); sys.stdin.read()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", deaf], stdin=pipe, stdout=pipe, text=True) as worker:
        assert worker.stdout and worker.stdout.readline() == ".\n"
        grading.end(worker)
        assert worker.wait(timeout=60) == 0


def test_without_namespaces_it_grades_under_plain_limits_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    right_solutions("19.3.1")(folder / "eve")
    plain = Isolation(False, isolation.PLAIN.format(why="asked for"))
    assert grading.grade(folder, isolation=plain) == 0
    assert "contained by plain limits (asked for)" in capsys.readouterr().out
    assert set(statuses(folder, "eve")) == {"met"}
