"""19.5.1: a document of what was measured. It is read, not believed: what only a person can judge stays with you.

Readings accepted: any headings and any prose; figures in tables, in sentences or as the output of hey, ab or wrk;
"concurrent", "clients", "users", "-c 5"; times in ms or s; "no errors" where there were none.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = (
    "ours sends at a constant rate, too: clients that wait for their answer stop asking when the server stalls."
)

if TYPE_CHECKING:
    from tests.kit.files import Files

BULLETS = [f"19.5.1 bullet {number}" for number in range(1, 4)]
NAMES = ("exercise_1_19_5_solution.md", "LOAD_TEST.md", "load_test.md", "LOADTEST.md", "loadtest.md")
LOAD = (
    r"concurren\w*|clients?|users?|parallel|simultaneous\w*|at once|at the same time|workers?|connections?"
    r"|threads?|\bVUs?\b|\bc ?= ?\d+"
)
COUNTED = (
    r"(?<![\w.-])\d+\b(?!\s*(?:ms|s\b|sec|%))"
    r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|fifteen|twenty|thirty|forty|fifty|hundred)\b"
)
SLOWER = (
    r"slow\w*|before|up to|handles?|limit|knee|satur\w*|capacity|degrad\w*|without|sweet spot|maximum|holds?|until"
    r"|as fast|wait\w*"
)
ERRORS = (
    r"errors?|fail\w*|time-?outs?|timed out|refused|non-2xx"
    r"|(?<!-n )(?<!-c )\b(?:429|500|502|503|504)\b(?! *(?:\||requests?|calls?|concurrent|users?|clients?|m?s\b))"
)
TIME = r"\d[\d.,]*\s*(?:ms|milliseconds?|s|secs?|seconds?)\b"
TIME_COLUMN = r"\b(?:ms|sec|secs|seconds?|latency|response|p\d\d|avg|average|mean|median|max|slowest|fastest|time)\b"


@dataclass
class Document:
    """A Markdown text: its sections (heading and lines) and its tables (rows by column name)."""

    path: Path
    text: str
    sections: list[tuple[str, str]] = field(default_factory=list)
    tables: list[list[dict[str, str]]] = field(default_factory=list)


def document(app: Files) -> Document:
    """Read the document that the learner names, or the one in the folder."""
    path = app.find("document of the load test", NAMES, r"(load|19_5|bench|perf).*\.(md|markdown|txt)$|\.md$")
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8", errors="replace"), flags=re.DOTALL)
    found = Document(path, text)
    heading, in_code = "", False
    lines: list[str] = []
    for line in text.splitlines():
        in_code ^= line.lstrip().startswith("```")
        if not in_code and (match := re.match(r"#{1,6}\s+(.*)|\*\*(.+?)\*\*\s*$", line)):
            found.sections.append((heading, "\n".join(lines)))
            heading, lines = match[1] or match[2], []
        else:
            lines.append(line)
    found.sections.append((heading, "\n".join(lines)))
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.strip().startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if len(rows) > 2 and re.fullmatch(r"[\s:|-]+", "|".join(rows[1])):
            del rows[1]
            if is_by_column(rows[0]):
                rows = [list(column) for column in itertools.zip_longest(*rows, fillvalue="")]
            found.tables.append([dict(zip(rows[0], row, strict=False)) for row in rows[1:]])
        rows = []
    return found


def is_by_column(head: list[str]) -> bool:
    """Tell whether a table has a column for each load in place of a row."""
    about_load = [re.search(LOAD, name, re.IGNORECASE) for name in head]
    has_number = [number(name) is not None and percentile_of(name) is None for name in head]
    return len(head) > 2 and all(has_number[1:]) and (about_load[0] is not None or all(about_load[1:]))


def number(text: str) -> float | None:
    match = re.search(r"\d+(?:\.\d+)?", text.replace(",", ""))
    return float(match[0]) if match else None


def loads(found: Document) -> set[int]:
    """Return the numbers of concurrent requests that something was measured with."""
    seen: set[int] = {int(n) for n in re.findall(r"\s-(?:c|t)\s*(\d+)\b", found.text)}
    for pattern in (rf"\b(\d+)\s+(?:{LOAD})", r"(?:concurrency(?: level)?|\bc)[\s:=]+(\d+)"):
        seen |= {int(n) for n in re.findall(pattern, found.text, re.IGNORECASE)}
    for table in found.tables:
        for name in table[0]:
            if re.search(rf"{LOAD}|\bload\b|-c\b|^c$", name, re.IGNORECASE):
                values = [number(row.get(name, "")) for row in table]
                seen |= {int(value) for value in values if value is not None}
    return seen


@check(
    "How many concurrent requests your agent handles before slowing down",
    chapter=BULLETS[0],
    needs={"files"},
    hints=(
        "The document needs one number: so many concurrent requests, and not more, before it gets slower.",
        "Say it in a sentence with the rule you used, for example: the last load at which p95 had not doubled.",
        "Up to 16 concurrent requests p95 stays below 300 ms; at 32 it doubles.",
    ),
)
def capacity(app: Files) -> None:
    found = document(app)
    said = False
    for heading, text in found.sections:
        prose = " ".join(line for line in text.splitlines() if not line.strip().startswith("|"))
        asked = re.search(r"concurren|slow", heading, re.IGNORECASE) is not None
        for sentence in re.split(r"(?<=[.!?:])\s+|\n\n", prose):
            has_number = re.search(COUNTED, sentence, re.IGNORECASE) is not None
            about = re.search(LOAD, sentence, re.IGNORECASE) and re.search(SLOWER, sentence, re.IGNORECASE)
            said = said or (has_number and (asked or bool(about)) and not sentence.lstrip().startswith("hey "))
    expect(
        said,
        when=f"reading {found.path.name}",
        expected="a sentence that says how many concurrent requests are handled before it slows down",
        came="no sentence with such a number",
    )


@check(
    "How many concurrent requests your agent handles before slowing down: measured at several loads",
    chapter=BULLETS[0],
    needs={"files"},
    hints=(
        "One load says nothing about where it slows down.",
        "Repeat the command with a growing -c, say 1, 5, 10, 20, 50, and write down each result.",
        "for c in 1 5 10 20 50; do hey -n $((c * 10)) -c $c ...; done",
    ),
)
def several_loads(app: Files) -> None:
    found = document(app)
    seen = loads(found)
    expect(
        len(seen) >= 3,
        when=f"reading {found.path.name}",
        expected="figures for at least three numbers of concurrent requests",
        came=f"figures for {', '.join(map(str, sorted(seen))) or 'none'}",
    )


@check(
    "What errors occur under heavy load",
    chapter=BULLETS[1],
    needs={"files"},
    hints=(
        "Say which errors came and how many, or that there were none, and at which load you looked.",
        "hey lists them under 'Status code distribution' and 'Error distribution'.",
        "With 200 concurrent requests 13 of 2000 timed out after 20 s; there were no 5xx.",
    ),
)
def errors(app: Files) -> None:
    found = document(app)
    said = False
    for heading, text in found.sections:
        under = re.search(ERRORS, heading, re.IGNORECASE) is not None
        for line in re.split(r"(?<=[.!?])\s+|\n", text):
            counted = re.search(r"\b(\d+|no|none|zero|never|without|not a single)\b", line, re.IGNORECASE) is not None
            said = said or (counted and (under or re.search(ERRORS, line, re.IGNORECASE) is not None))
    said = said or any(re.search(ERRORS, name, re.IGNORECASE) for table in found.tables for name in table[0])
    expect(
        said,
        when=f"reading {found.path.name}",
        expected="which errors came under heavy load and how many, or that none came",
        came="nothing about errors",
    )


@check(
    "How response times change with load",
    chapter=BULLETS[2],
    needs={"files"},
    hints=(
        "Response times for at least two loads, so that one can see the change.",
        "A table with a row for each load reads best; percentiles say more than averages.",
        "| clients | p50 ms | p95 ms |",
    ),
)
def response_times(app: Files) -> None:
    found = document(app)
    rows = max((timed_rows(table) for table in found.tables), default=0)
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n", found.text) if re.search(TIME, s)]
    with_load = [s for s in sentences if re.search(rf"{LOAD}|-c\s*\d", s, re.IGNORECASE)]
    pasted = len(re.findall(r"(?:50%+ in|Average:|Time per request:|Latency)\s+\d", found.text))
    pairs = sum(len(re.findall(TIME, sentence)) for sentence in with_load)
    expect(
        rows >= 2 or pairs >= 2 or pasted >= 2,
        when=f"reading {found.path.name}",
        expected="response times, with their unit, for at least two loads",
        came=f"{max(rows, pairs, pasted)} load(s) with a response time",
    )


def timed_rows(table: list[dict[str, str]]) -> int:
    """Count the rows of a table that give a time for a load."""
    names = [name for name in table[0] if re.search(TIME_COLUMN, name, re.IGNORECASE)]
    return sum(any(number(row.get(name, "")) is not None for name in names) for row in table)


@check(
    "How response times change with load: with figures that can be true",
    chapter=BULLETS[2],
    needs={"files"},
    hints=(
        "Half of the requests cannot take longer than 95 % of them: p50 <= p95 <= p99 <= max in every row.",
        "Copy the figures from the output of one run; do not type them from memory.",
        "hey's '50%% in 0.2 secs' is p50, '95%% in' p95, 'Slowest' is the maximum.",
    ),
)
def can_be_true(app: Files) -> None:
    found = document(app)
    judged = 0
    for table in found.tables:
        kinds = [(percentile_of(name), name) for name in table[0]]
        ordered = sorted((kind, name) for kind, name in kinds if kind is not None)
        for row in table:
            values = [(name, number(row.get(name, ""))) for _, name in ordered]
            known = [(name, value) for name, value in values if value is not None]
            judged += len(known) > 1
            for (low, small), (high, large) in itertools.pairwise(known):
                expect(
                    small <= large,
                    when=f"reading {found.path.name}",
                    expected=f"{low} not above {high} in every row",
                    came=f"{low} {small:g} and {high} {large:g} in the row {' | '.join(row.values())}",
                )
    if not judged:
        raise NotChecked("there is no table with several percentiles to compare; read the figures yourself")


def percentile_of(name: str) -> float | None:
    """Return which percentile a column gives; the largest value is the hundredth."""
    if match := re.search(r"\bp(\d\d)\b|\b(\d\d)(?:th|\s?%)", name, re.IGNORECASE):
        return float(match[1] or match[2])
    if re.search(r"median", name, re.IGNORECASE):
        return 50.0
    return 100.0 if re.search(r"\b(?:max\w*|slowest|worst)\b", name, re.IGNORECASE) else None
