"""What a finding is, and what the rules say about it."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

RULES = Path(__file__).with_name("rules.toml")
SEVERITIES = ("critical", "high", "medium", "low", "unknown")


@dataclass(frozen=True)
class Finding:
    """One thing to fix: where, how bad, what was seen (secrets masked), what to do, and how to see it oneself."""

    rule: str
    file: str
    line: int
    evidence: str
    nth: int = 0  # tells equal lines of one file apart
    detail: str = ""

    @property
    def id(self) -> str:
        """Return an id that stays the same when lines move: it knows the rule, the file and the words of the line."""
        words = "\0".join((self.rule, self.file, " ".join(self.evidence.split()), str(self.nth)))
        return f"{self.rule}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything about it: what was seen, and what the rules say."""
        about = dict(rules()["rules"][self.rule])
        about["verify"] = about["verify"].format(
            file=self.file, line=self.line, evidence=self.evidence.replace(" /", " $URL/", 1)
        )
        return {"id": self.id} | {k: v for k, v in asdict(self).items() if k != "nth"} | about


@dataclass(frozen=True)
class Audit:
    """What was found, what was accepted and why, how much was read, and where keys are used."""

    findings: tuple[Finding, ...]
    files: int
    key_uses: tuple[tuple[str, int, str], ...] = ()
    accepted: Mapping[str, str] = field(default_factory=dict)
    app: str = ""

    @property
    def open(self) -> list[Finding]:
        """The findings that nobody has accepted, worst first."""
        found = [finding for finding in self.findings if finding.id not in self.accepted]
        return sorted(found, key=lambda f: (SEVERITIES.index(severity(f)), f.file, f.line))


@cache
def rules() -> dict[str, Any]:
    """Load the rules, the patterns of secrets and the snapshot of vulnerable pins."""
    return tomllib.loads(RULES.read_text(encoding="utf-8"))


def words(name: str) -> frozenset[str]:
    """Return one of the lists of words."""
    return frozenset(rules()["words"][name].split())


def severity(finding: Finding) -> str:
    """Return how bad it is: critical, high, medium, low or unknown."""
    return str(rules()["rules"][finding.rule]["severity"])
