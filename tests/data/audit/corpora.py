"""The planted and the clean corpus: files whose lines say what must be found in them, with secrets filled in."""

from __future__ import annotations

import random
import re
from pathlib import Path

from tests.data.audit.made_up import FORMATS, secret

HERE = Path(__file__).parent


def build(kind: str, target: Path, seed: int = 1) -> set[tuple[str, int, str]]:
    """Write a corpus ("planted" or "clean") into a folder; returns the file, line and rule of all that is planted."""
    rng = random.Random(seed)
    expected = set()
    for template in sorted(p for p in (HERE / kind).rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        name = template.relative_to(HERE / kind).as_posix().replace(".py.txt", ".py")  # no linter reads a .txt
        text = template.read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.search(r"# expect(?: (\d)?\s?above)?: ([\w, -]+)", line):
                above = int(match[1] or 1) if "above" in match[0] else 0
                expected |= {(name, number - above, rule) for rule in match[2].split(", ")}
        for key in FORMATS:
            text = text.replace("{%s}" % key, secret(key, rng))  # noqa: UP031 (an f-string would double the braces)
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return expected
