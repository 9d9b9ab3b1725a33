"""The table of the exercises, printed and kept in step in the READMEs, from one source."""

from __future__ import annotations

import re
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
