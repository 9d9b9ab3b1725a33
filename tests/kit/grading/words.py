"""What a student's program says, made fit for a report: nobody's paths, no control characters, limits by their name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.kit.grading.watch import DISK_MB, LIMITS, OUTPUT_MB, PROCESSES

NAMES = {
    "File too large": f"it wrote more than {OUTPUT_MB} MB into one file",
    "Resource temporarily unavailable": f"it started more than {PROCESSES} processes",
    "MemoryError": f"it used more than {LIMITS['RLIMIT_AS'] // 1024**3} GB of memory",
    "No space left on device": f"it filled the {DISK_MB} MB of disk that it may use",
}
LONGEST = 2000


def explained(cannot: str, output: str = "") -> str:
    """Add the limit's name where the words are those of the system."""
    last = "\n".join(output.splitlines()[-3:])
    named = [name for words, name in NAMES.items() if words in cannot or words in last]
    return "\n".join([*named, cannot])


def scrubbed(value: Any, hide: Mapping[str, str]) -> Any:
    """Return JSON data whose texts are short, printable and free of the places in `hide`."""
    if isinstance(value, dict):
        return {key: scrubbed(item, hide) for key, item in value.items()}
    if isinstance(value, list):
        return [scrubbed(item, hide) for item in value]
    return clean(value, hide) if isinstance(value, str) else value


def clean(text: str, hide: Mapping[str, str] | None = None) -> str:
    """Return a text without control characters (terminals obey them, XML forbids them), cut at LONGEST."""
    for place, name in (hide or {}).items():
        text = text.replace(place + "/", name).replace(place, name or ".")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = "".join(c if c == "\n" or c.isprintable() else "?" for c in text)
    return text if len(text) <= LONGEST else text[:LONGEST] + " ... (cut)"
