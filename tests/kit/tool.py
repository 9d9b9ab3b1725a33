"""A target that is a tool: a script that is given a folder, prints (or writes) what it finds there, and ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.kit.confine import confined
from tests.kit.contract import Form
from tests.kit.files import Still
from tests.kit.target import KEPT, CannotRun, Target

TOOL_S = 60.0
REPORTS = (".md", ".txt", ".json", ".html", ".sarif", ".csv", ".log")


@dataclass(frozen=True)
class Ran:
    """One run of a tool: what it was given, all that it printed and wrote, and how it ended."""

    command: str
    output: str
    code: int

    def sent(self) -> str:
        """Return the command."""
        return self.command

    def came(self) -> str:
        """Return the end of the output."""
        return f"exit {self.code}, " + (" | ".join(self.output.split("\n")[-8:])[-300:] or "no output")

    def curl(self, base: str) -> str:
        """Return the command: a tool has no address."""
        return self.command


class Tool(Still):
    """A script as the checks see it. It is called with the folder as its argument, inside the folder."""

    kind = "a tool"
    capabilities = frozenset((Form.TOOL,))

    def __init__(self, target: Target) -> None:
        if target.file is None:
            raise CannotRun(f"{target.url} is no file: this exercise builds a script, MINE=your_script.py")
        self.file = target.file
        self._seen: dict[tuple[tuple[str, str], ...], Ran] = {}

    def run(self, files: Mapping[str, str]) -> Ran:
        """Run it on a folder that holds these files; the same files are run once."""
        key = tuple(sorted(files.items()))
        if key not in self._seen:
            with tempfile.TemporaryDirectory(prefix="check-") as folder:
                agent = Path(folder) / "agent"
                agent.mkdir()
                for name, text in files.items():
                    (agent / name).write_text(text, encoding="utf-8")
                self._seen[key] = self._run(agent)
        return self._seen[key]

    def _run(self, folder: Path) -> Ran:
        env = {name: os.environ[name] for name in KEPT if name in os.environ} | {"PYTHONDONTWRITEBYTECODE": "1"}
        before, beside = set(folder.rglob("*")), reports_beside(self.file)
        for arguments in ([str(folder)], []):  # a script without arguments looks at the folder it is in
            command = confined([sys.executable, str(self.file), *arguments])
            with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
                try:
                    ran = subprocess.run(
                        command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=TOOL_S,
                        check=False,
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    raise CannotRun(f"{self.file.name} was still busy after {TOOL_S:.0f} s") from None
                stdout, stderr = beginning(out), beginning(err)
            if ran.returncode != 2:
                break
        if "Traceback (most recent call last)" in stderr:
            raise CannotRun(f"{self.file.name} stopped: {stderr.strip().splitlines()[-1]}")
        written = [p for p in sorted(set(folder.rglob("*")) - before) if p.suffix in REPORTS]
        written += [p for p, changed in reports_beside(self.file).items() if beside.get(p) != changed]
        texts = [stdout, stderr, *(p.read_text(encoding="utf-8", errors="replace") for p in written)]
        return Ran(f"python {self.file.name} agent/", steady("\n".join(t for t in texts if t), folder), ran.returncode)

    def news(self, files: Mapping[str, str], without: Mapping[str, str]) -> tuple[list[str], Ran]:
        """Return the lines that the tool says of these files and not of the others."""
        ran, known = self.run(files), set(self.run(without).output.splitlines())
        return [line for line in ran.output.splitlines() if line.strip() and line not in known], ran


def reports_beside(file: Path) -> dict[Path, int]:
    """Return the reports in a script's own folder, and when each was written: some write theirs there."""
    return {p: p.stat().st_mtime_ns for p in sorted(file.parent.glob("*.*")) if p.suffix in REPORTS}


def steady(text: str, folder: Path) -> str:
    """Take out what differs from run to run: where the folder is, what time it is, how long it took."""
    for place in (folder.resolve(), folder):
        text = text.replace(str(place), "agent")
    return re.sub(r"\d{4}-\d\d-\d\d|\b\d\d?:\d\d(?::\d\d)?(?:[.,]\d+)?|\b\d+\.\d+(?= ?m?s)", "-", text)


def beginning(file: IO[bytes], size: int = 5_000_000) -> str:
    """Return what a program has written into a file, as far as anybody would read."""
    file.seek(0)
    return file.read(size).decode("utf-8", "replace").replace("\r\n", "\n")
