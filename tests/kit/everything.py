"""`check-all`: pytest over everything, in parallel, and one table of what it found."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections import Counter

import pytest

from tests.chapter import EXERCISES, progress

COLUMNS = ("contract", "attempts", "unit tests")
HOUSE, SERVICE = "house", "production"
LONG_FIRST = ("tests/production", "tests/test_attempts.py")


def run_everything() -> int:
    """Run all tests and print the table; with CI=true a skip is a failure."""
    table = Table()
    missing = [name for name in ("xdist", "hypothesis") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"check-all needs tests/requirements.txt: {', '.join(missing)} not installed", file=sys.stderr)
        return 2
    # Two workers a core, since most tests wait for a process or an answer; one test at a time, the long ones first.
    workers = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "load", "--maxschedchunk", "1"]
    status = int(pytest.main(["-q", "--no-header", *workers, *LONG_FIRST, "tests"], [table]))
    print(f"\n{table}\n")
    skipped_in_ci = os.environ.get("CI") == "true" and table.skips
    if skipped_in_ci:
        print("CI=true: what is skipped counts as failed")
    return 1 if status or skipped_in_ci else 0


class Table:
    """A pytest plugin that counts results by exercise."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counter[str]] = {}
        self.skips: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one test: its call, or its set-up when it went no further."""
        if report.when == "call" or (report.when == "setup" and not report.passed) or report.failed:
            self.counts.setdefault(place(report.nodeid), Counter())[report.outcome] += 1
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.skips.append((report.nodeid.rpartition("::")[2], reason.removeprefix("Skipped: ")))

    def __str__(self) -> str:
        rows = [f"{'':<10}" + "".join(f"{column:>24}" for column in COLUMNS)]
        for name in [exercise.id for exercise in EXERCISES if exercise.built] + [SERVICE, HOUSE]:
            rows.append(f"{name:<10}" + "".join(f"{self._cell(name, column):>24}" for column in COLUMNS))
        rows += [f"skipped   {test}: {reason}" for test, reason in self.skips]
        rows.append(f"{len(self.skips)} skipped. {progress()}")
        return "\n".join(rows)

    def _cell(self, name: str, column: str) -> str:
        count = self.counts.get((name, column), Counter())
        words = [f"{count['passed']} passed"] if count["passed"] else []
        words += [f"{count['failed']} FAILED"] if count["failed"] else []
        words += [f"{count['skipped']} skipped"] if count["skipped"] else []
        return ", ".join(words) or "-"


def place(nodeid: str) -> tuple[str, str]:
    """Return the row and the column that a test belongs to."""
    file, _, test = nodeid.partition("::")
    if "tests/production/" in file:
        return SERVICE, "unit tests"
    if match := re.search(r"\b(19\.\d\.\d)\b", test):
        return match[1], "attempts" if "test_attempts" in file else "contract"
    if match := re.search(r"test_exercise_(\d)_(19)_(\d)", file):
        return f"{match[2]}.{match[3]}.{match[1]}", "unit tests"
    return HOUSE, "unit tests"
