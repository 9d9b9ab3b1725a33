"""`freeze`: what the image installs, written by `pip freeze` in a fresh virtual environment."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.chapter import FOLDER, ROOT

FROZEN = FOLDER / "exercise_1_requirements.txt"
NOT_IN_THE_IMAGE = ("pytest", "numpy")  # the checks' own, and section 19.6's
HEADER = "# What exercise_1_Dockerfile installs, as `pip freeze` wrote it. Made anew by: make freeze\n"


def runtime_pins() -> list[str]:
    """Return the pins of the root requirements that a program of the image needs."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split("#")[0].strip() for line in lines]
    return [pin for pin in pins if pin and re.split("=", pin)[0] not in NOT_IN_THE_IMAGE]


def pins(text: str) -> dict[str, str]:
    """Return version by package of a frozen list."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, _, version in (li.partition("==") for li in lines)}


def freeze() -> int:
    """Install the pins into a fresh environment, freeze it, and say what changed."""
    with tempfile.TemporaryDirectory(prefix="freeze-") as folder:
        venv.create(folder, with_pip=True)
        python = next(
            p for p in (Path(folder) / "bin" / "python", Path(folder) / "Scripts" / "python.exe") if p.exists()
        )
        pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
        if subprocess.run([*pip, "install", "--quiet", *runtime_pins()], check=False).returncode:
            print("pip could not install the pins of requirements.txt; nothing is changed", file=sys.stderr)
            return 2
        frozen = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True).stdout
    before, after = pins(FROZEN.read_text(encoding="utf-8")) if FROZEN.exists() else {}, pins(frozen)
    FROZEN.write_text(HEADER + frozen, encoding="utf-8")
    for name in sorted(before | after):
        if before.get(name) != after.get(name):
            print(f"{name}: {before.get(name, '-')} -> {after.get(name, '-')}")
    print(f"{len(after)} packages in {FROZEN.relative_to(ROOT).as_posix()}")
    return 0
