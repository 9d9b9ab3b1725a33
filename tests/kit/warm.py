"""pytest in forks of a process that has imported what most tests import: half a second in place of three.

Where there is no fork (Windows) each run is a process of its own: the same verdicts, slower.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.chapter import ROOT

# Nothing that is examined (it must be imported afresh), nothing that starts a thread.
IMPORTED = (
    *(
        "pytest",
        "_hypothesis_pytestplugin",
        "anyio.pytest_plugin",
        "anyio._backends._asyncio",
        "dotenv",
        "numpy",
        "pydantic",
        "fastapi",
        "uvicorn",
        "httpx",
        "openai",
    ),
    *(
        "langgraph.graph",
        "langgraph.checkpoint.memory",
        "tests.kit.app",
        "shared.agent",
        "shared.api",
        "shared.offline",
    ),
)
PLUGINS = ("-p", "anyio", "-p", "_hypothesis_pytestplugin")


class WarmPytest:
    """Runs pytest over some files, each time in a process of its own; safe to call from several threads."""

    def __init__(self) -> None:
        self._forks = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if self._forks else "spawn")
        if self._forks:
            self._context.set_forkserver_preload(list(IMPORTED))

    def passes(self, arguments: list[str], timeout_s: float) -> bool:
        """Run pytest with these arguments; False when a test fails or the time is over."""
        process = self._context.Process(target=_run, args=(arguments, self._forks))
        process.start()
        process.join(timeout_s)
        late = process.is_alive()
        if late or self._forks:
            self._end(process.pid)
        process.join()
        return not late and process.exitcode == 0

    def _end(self, pid: int | None) -> None:
        """End what is left of a run: the process, and with it the servers that its tests started."""
        assert pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL) if self._forks else os.kill(pid, signal.SIGTERM)

    def close(self) -> None:
        """End the process that forks."""
        if self._forks:
            from multiprocessing import forkserver

            forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no public way before exit

    def __enter__(self) -> WarmPytest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(arguments: list[str], own_group: bool) -> None:
    if own_group:
        os.setsid()
    nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (as long as the process lives)
    os.dup2(nowhere.fileno(), 1)
    os.dup2(nowhere.fileno(), 2)
    sys.stdout = sys.stderr = nowhere
    os.chdir(ROOT)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    gc.freeze()  # what was imported stays: nobody needs to look through it again
    # The plugins among what is imported already need no rewritten asserts.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    raise SystemExit(pytest.main([*quiet, *PLUGINS, "-x", "-q", *arguments]))
