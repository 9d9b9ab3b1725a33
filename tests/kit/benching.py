"""`bench`: run one benchmark and print its table; every ratio is measured side by side in one run."""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import sys
from importlib.metadata import version

from tests.chapter import FOLDER, NoSuchExercise, find
from tests.kit.readme import put_between

HEADER = "| What | Ours | Beside it | Ratio, target |\n| --- | --- | --- | --- |\n"


def run_bench(name: str, *, write: bool) -> int:
    """Run the bench of an exercise, "startup" or "production"; with `write`, put its table into the README."""
    name = name if name in ("startup", "production") else find(name).id
    sys.path.insert(0, str(FOLDER))  # as for a script that is run there
    try:
        module = importlib.import_module(f"tests.benches.bench_{name.replace('.', '_')}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tests.benches"):
            raise NoSuchExercise(f"{name} has no benchmark") from None
        print(f"the benchmarks need tests/requirements.txt: {error.name} is not installed", file=sys.stderr)
        return 2
    print((module.__doc__ or "").splitlines()[0] + "\n", flush=True)
    rows = "".join(f"| {' | '.join(row)} |\n" for row in module.run())
    text = HEADER + rows + f"\n{conditions(getattr(module, 'VERSIONS', ()))}\n"
    print(text)
    if write:
        put_between(getattr(module, "README", FOLDER / "README.md"), f"bench {name}", text)
    return 0


def conditions(packages: tuple[str, ...]) -> str:
    """Say when and on what it was measured."""
    versions = ", ".join(f"{package} {version(package)}" for package in ("fastapi", *packages))
    python = f"Python {platform.python_version()}"
    return f"Measured on {datetime.date.today().isoformat()}, {os.cpu_count()} cores, {python}, {versions}."
