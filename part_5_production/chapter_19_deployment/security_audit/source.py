"""One file of text, its findings so far, and the secrets that no evidence may show."""

import re
from collections import Counter

from security_audit.findings import Finding
from security_audit.hidden import secrets_in


class Source:
    """One file, its findings so far, and the secrets that no evidence may show."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.lines = text.splitlines() or [""]
        self._found: dict[tuple[str, int], str] = {}
        self._secrets: set[str] = set()
        self.key_uses: dict[int, str] = {}

    def find(self, rule: str, line: int, *, secret: str = "", detail: str = "") -> None:
        """Note a finding, once per rule and line."""
        if secret:
            self._secrets.add(secret)
        self._found.setdefault((rule, line), detail)

    def has(self, rule: str, line: int) -> bool:
        """Tell whether this rule has found something on this line."""
        return (rule, line) in self._found

    def find_secrets(self, text: str, line: int, rule: str = "secret-in-code") -> bool:
        """Note every secret in a text that begins on this line."""
        found = list(secrets_in(text))
        for start, value in found:
            self.find(rule, line + text.count("\n", 0, start), secret=value)
        return bool(found)

    def masked(self, line: int) -> str:
        """Return a line as it may be shown."""
        text = self.lines[min(line, len(self.lines)) - 1].strip()
        for value in sorted(self._secrets | {value for _, value in secrets_in(text)}, key=len, reverse=True):
            text = text.replace(value, (value[:4] if len(value) >= 20 else "") + "****")
            pieces = [re.escape(value[i : i + 8]) for i in range(4, len(value) - 7, 4)]
            if pieces:  # one that stands there in two parts
                text = re.sub(rf"(?:{'|'.join(pieces)})[\w.+/=-]*", "****", text)
        return text[:160]

    def findings(self) -> list[Finding]:
        """Return the findings; equal ones of one file are numbered."""
        seen: Counter[tuple[str, str]] = Counter()
        out = []
        for (rule, line), detail in sorted(self._found.items(), key=lambda item: item[0][1]):
            evidence = self.masked(line)
            out.append(Finding(rule, self.file, line, evidence, seen[rule, evidence], detail))
            seen[rule, evidence] += 1
        return out
