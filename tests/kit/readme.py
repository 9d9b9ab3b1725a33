"""The table of the exercises, printed and kept in step in the READMEs, from one source."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

from tests.chapter import FOLDER, ROOT, markdown, progress, table
from tests.kit import remembered

READMES = {ROOT / "README.md": "part_5_production/chapter_19_deployment/", FOLDER / "README.md": ""}


def print_table() -> None:
    """Print number, heading, status, what it builds, and how far the learner's own one has come."""
    found = remembered.reached()
    for number, heading, builds, status in table():
        yours = remembered.in_words(number, found)
        print(f"{number}  {status:<8} {heading:<33} {builds}" + (f"  [{yours}]" if yours else ""))
    print(f"\n{progress()}")


def transcripts() -> dict[str, str]:
    """Run what the README shows, and return it by the name of its marker; ids and seconds are always the same ones."""
    from tests.chapter import find
    from tests.kit.checking import check_one

    exercise = find("19.2.3")
    command = [sys.executable, str(exercise.path)]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True)
    steps = ran.stdout.strip().split("\n\n")[:4]

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        check_one(exercise, str(ROOT / "tests/attempts/19.2.3/rejected/no_retry_after.py"), "")
    missed = re.search(r"^FAIL.*?(?=^\S)", said.getvalue(), re.MULTILINE | re.DOTALL)
    assert missed, said.getvalue()
    return {"a run": _fenced("\n\n".join(steps)), "a failure": _fenced(missed[0].rstrip())}


def _fenced(text: str) -> str:
    for pattern, always in (
        (r"\b[0-9a-f]{32}\b", "0bd02bfb939e499483104b26acb4810c"),
        (r"\bt=\d+", "t=60"),
        (r"Retry-After: \d+", "Retry-After: 60"),
    ):
        text = re.sub(pattern, always, text)
    return f"```text\n{text}\n```\n"


def write_transcripts() -> None:
    """Write anew what the README shows."""
    for name, text in transcripts().items():
        put_between(ROOT / "README.md", name, text)


def write_tables() -> None:
    """Write the table between its markers in both READMEs."""
    for path, link_to in READMES.items():
        put_between(path, "exercises", markdown(link_to))


def put_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end name -->`."""
    old = path.read_text(encoding="utf-8")
    pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
    new, found = re.subn(pattern, lambda match: match[1] + text + match[2], old, flags=re.DOTALL)
    if not found:
        raise SystemExit(f"{path.relative_to(ROOT)} has no <!-- {name} --> ... <!-- end {name} -->")
    path.write_text(new, encoding="utf-8")


def between(path: Path, name: str) -> str:
    """Return what stands between the markers."""
    text = path.read_text(encoding="utf-8")
    match = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- end {re.escape(name)} -->", text, re.DOTALL)
    return match[1] if match else ""
