"""Other people's solutions: what the checks must accept, and what they must reject, at the check it declares.

The first line of a rejected attempt says so: `# must fail: retry-after` (several ids with commas). A check beyond the
chapter counts only there: who is not told by the chapter may leave it out, and is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.kit.contract import contract

FOLDER = Path(__file__).resolve().parents[1] / "attempts"


@dataclass(frozen=True)
class Attempt:
    """One attempt and the ids of the checks it must fail; an accepted one fails none."""

    exercise: str
    path: Path
    must_fail: frozenset[str]

    def counted(self, missed: set[str]) -> set[str]:
        """Return what of the missed checks counts here: what the chapter asks for, and what is declared."""
        beyond = {check.id for check in contract(self.exercise) if check.beyond}
        return missed - (beyond - self.must_fail)

    def __str__(self) -> str:
        return f"{self.exercise}-{self.path.parent.name}-{self.path.name}"


def attempts(exercise: str | None = None) -> list[Attempt]:
    """Return the attempts at one exercise, or at all of them; an attempt is a file or a folder."""
    found = []
    for kind in ("accepted", "rejected"):
        for path in sorted(FOLDER.glob(f"{exercise or '19.*'}/{kind}/*")):
            if path.name.startswith((".", "__")):
                continue
            found.append(Attempt(path.parts[-3], path, declared(path) if kind == "rejected" else frozenset()))
    return found


def declared(path: Path) -> frozenset[str]:
    """Read which checks a rejected attempt must fail."""
    file = path / "MUST_FAIL" if path.is_dir() else path
    first = file.read_text(encoding="utf-8", errors="replace").splitlines()[0]
    _, marker, ids = first.partition("must fail:")
    assert marker, f"{path}: the first line must read '# must fail: CHECK-ID'"
    return frozenset(id.strip(" ->*/") for id in ids.split(","))
