"""A Markdown document as data: its sections, and in each the code blocks, list items and table rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.files import Place


@dataclass(frozen=True)
class Code:
    """A fenced block: its language, its text, and whether a comment `<!-- run -->` stands before it."""

    language: str
    text: str
    line: int
    run: bool = False


@dataclass
class Section:
    """A heading and all that stands under it, deeper headings included (`inner` names those)."""

    title: str
    level: int
    place: Place
    inner: list[str] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)
    numbered: list[str] = field(default_factory=list)
    bullets: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    prose: list[str] = field(default_factory=list)

    @property
    def items(self) -> list[str]:
        """Every list item and table row, as text."""
        return self.numbered + self.bullets + [" | ".join(row) for row in self.rows]

    @property
    def commands(self) -> list[str]:
        """Every line of the code blocks that is no comment, and every piece of code within a text."""
        lines = [line.strip().removeprefix("$ ") for block in self.code for line in block.text.splitlines()]
        within = [code for text in (*self.prose, *self.items) for code in re.findall(r"`([^`]+)`", text)]
        return [line for line in (*lines, *within) if line and not line.startswith("#")]

    @property
    def text(self) -> str:
        """All words of the section but its code blocks."""
        return "\n".join((*self.inner, *self.prose, *self.items))


def read(path: Path) -> list[Section]:
    """Return the sections of a document in order; the first one is what stands before any heading."""
    sections = [Section("", 0, Place(path))]
    open_ones = [sections[0]]
    run = False
    for kind, number, value in parts(path.read_text(encoding="utf-8-sig", errors="replace")):
        if kind == "heading":
            marks, _, title = value.partition(" ")
            new = Section(title.strip(), len(marks), Place(path, number, value))
            open_ones = [section for section in open_ones if 0 < section.level < new.level]
            for section in open_ones:
                section.inner.append(new.title)
            open_ones.append(new)
            sections.append(new)
            continue
        for section in open_ones:
            if kind == "code":
                language, _, text = value.partition("\n")
                section.code.append(Code(language.strip(), text, number, run))
            elif kind == "row":
                section.rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", value.strip().strip("|"))])
            else:
                getattr(section, kind).append(value)
        run = kind == "prose" and value.strip() == "<!-- run -->"
    return sections


def parts(text: str) -> Iterator[tuple[str, int, str]]:
    """Yield kind, line and text: heading (with its marks), code, numbered, bullets, row, prose."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if fence := re.match(r" {0,3}(?:[-*>\d.]+ +)?\s*(`{3,}|~{3,})(.*)", line):
            block, start = [], number
            while number < len(lines) and not re.match(rf"\s*{fence[1]}\s*$", lines[number]):
                block.append(lines[number])
                number += 1
            number += 1
            yield "code", start, fence[2] + "\n" + "\n".join(block)
        elif re.match(r"(?: {4}|\t)\s*\S", line) and _after_a_gap(lines, number - 1):
            start = number - 1
            while number < len(lines) and re.match(r" {4}|\t|\s*$", lines[number]):
                number += 1
            yield "code", start, "\n" + "\n".join(lines[start:number]).rstrip()
        elif re.match(r" {0,3}#{1,6} ", line):
            yield "heading", number, line.strip().rstrip("#").rstrip()
        elif (
            line.strip()
            and number < len(lines)
            and re.match(r" {0,3}(=+|-{3,})\s*$", lines[number])
            and "|" not in line
        ):
            yield "heading", number, ("# " if "=" in lines[number] else "## ") + line.strip()
            number += 1
        elif line.strip() and number < len(lines) and (definition := re.match(r":\s+(.*)", lines[number])):
            yield "bullets", number, f"{line.strip()}: {definition[1]}"
            number += 1
        elif match := re.match(r"\s*\d+[.)]\s+(.*)", line):
            yield "numbered", number, match[1]
        elif match := re.match(r"\s*[-*+]\s+(.*)", line):
            yield "bullets", number, match[1]
        elif re.match(r"\s*\|?[\s:|-]*-{3,}[\s:|-]*$", line) and "|" in line:
            continue
        elif line.strip().startswith("|") or re.search(r"\S \| \S", line):
            yield "row", number, line
        elif line.strip():
            yield "prose", number, line


def _after_a_gap(lines: list[str], index: int) -> bool:
    """Tell whether an indented line begins a code block: after an empty line or a heading, and in no list's item."""
    above = [line for line in lines[:index] if line.strip() and not line.startswith((" ", "\t"))]
    in_list = bool(above and re.match(r"(?:\d+[.)]|[-*+])\s", above[-1]))
    gap = index > 0 and re.match(r"\s*$| {0,3}#{1,6} | {0,3}(?:=+|-{3,})\s*$", lines[index - 1])
    return bool(gap) and not in_list
