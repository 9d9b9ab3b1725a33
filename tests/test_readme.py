"""What the README shows is what happens: transcripts and errors, made anew."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chapter import FOLDER, ROOT
from tests.kit import readme

README = ROOT / "README.md"
SCRIPT = FOLDER / "exercise_3_19_2_solution.py"


def said_by(*command: str, cwd: Path = ROOT, **variables: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "OFFLINE"))}
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=env | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode != 0
    return ran.stderr


def test_the_transcripts_are_what_happens() -> None:
    for name, text in readme.transcripts().items():
        assert readme.between(README, name) == text, "run: python -m tests list --write"


def test_an_error_that_people_see_no_packages() -> None:
    last = said_by("-S", str(SCRIPT)).splitlines()[-1]
    assert last in README.read_text(encoding="utf-8")


def test_an_error_that_people_see_no_key(tmp_path: Path) -> None:
    start = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import exercise_3_19_2_solution as e; e.create_app()"
    said = said_by("-c", start, cwd=tmp_path, OPENAI_API_KEY="")
    assert said[said.index("shared.config.SettingsError") :].strip() in README.read_text(encoding="utf-8")


def test_an_error_that_people_see_the_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = said_by(str(SCRIPT), "--serve", OFFLINE="1", PORT=port)
    line = next(line for line in said.splitlines() if "attempting to bind" in line)
    anywhere = re.sub(r"Errno \d+", "Errno 98", line).replace(port, "8000")
    assert anywhere in README.read_text(encoding="utf-8")


def test_first_success_takes_at_most_three_commands() -> None:
    first = re.search(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert first and len(first[1].strip().splitlines()) <= 3


@pytest.mark.parametrize("variable", ["WATCH", "REPLAY", "LIVE", "MINE", "KEY", "LEVEL"])
def test_what_the_readme_names_the_makefile_knows(variable: str) -> None:
    assert f"{variable}=" in README.read_text(encoding="utf-8")
    assert f"$({variable})" in (ROOT / "Makefile").read_text(encoding="utf-8")
