"""19.7.1: how long the audit takes, what it recalls, and how often it is wrong, on secrets made up for this run.

The time is this process's own. Names and values are drawn anew each run, so the figures are not those of the tests.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from security_audit.source import Source
from security_audit.static import audit, check_python

from tests.chapter import ROOT
from tests.data.audit.corpora import build
from tests.data.audit.made_up import FORMATS, harmless, secret

ROUNDS = 5


def run() -> list[tuple[str, str, str, str]]:
    """Return the rows: what, ours, beside it, target."""
    begun = time.process_time()
    report = audit([ROOT])
    took = time.process_time() - begun
    rng = random.Random()
    pairs = [(kind, secret(kind, rng)) for _ in range(ROUNDS) for kind in FORMATS]
    others = [pair for _ in range(ROUNDS) for pair in harmless(rng)]
    recall = sum(alarm(*pair) for pair in pairs) / len(pairs)
    wrong = sum(alarm(*pair) for pair in others) / len(others)
    with tempfile.TemporaryDirectory() as folder:
        expected = build("planted", Path(folder), seed=rng.randrange(10**6))
        found = {(f.file, f.line, f.rule) for f in audit([Path(folder)]).findings}
    with tempfile.TemporaryDirectory() as folder:
        build("clean", Path(folder))
        clean = audit([Path(folder)])
    return [
        (f"this repository, {report.files} files", f"{took:.2f} s", "-", "under 3 s"),
        (f"recall, {len(pairs)} secrets of {len(FORMATS)} kinds", f"{recall:.1%}", "-", "at least 85 %"),
        (f"false alarms, {len(others)} strings that are none", f"{wrong:.1%}", "-", "at most 10 %"),
        (f"planted mistakes found, of {len(expected)}", f"{len(expected & found)}", "-", "all"),
        ("findings per clean file", f"{len(clean.findings) / clean.files:.2f}", "-", "at most 0.1"),
    ]


def alarm(name: str, value: str) -> bool:
    """Tell whether a value under this name is taken for a secret."""
    source = Source("a.py", f"{name} = {value!r}\n")
    check_python(source)
    return any(finding.rule == "secret-in-code" for finding in source.findings())
