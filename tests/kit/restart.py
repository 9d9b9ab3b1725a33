"""Start the same target again, alone in an empty folder, with another environment and another `.env`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.app import App
from tests.kit.confine import confined
from tests.kit.target import KEPT, CannotRun, copy_alone
from tests.kit.tool import beginning

SCRIPT_S = 15.0


@dataclass(frozen=True)
class Started:
    """What became of a start: the app if it is up, and everything that was said."""

    app: App | None
    said: str


@contextmanager
def start_alone(app: App, env: Mapping[str, str], dotenv: str = "") -> Iterator[Started]:
    """Start the target's file once more; `env` changes the usual environment, an empty value removes a variable."""
    assert app.starter and app.process
    try:
        process = app.starter.start(app.target, model_url=app.model.url, env=env, dotenv=dotenv)
    except CannotRun as cannot:
        yield Started(None, f"{cannot}\n{cannot.output}")
        return
    again = App(app.target, f"http://127.0.0.1:{process.port}", app.manner, process, app.model)
    try:
        yield Started(again, process.output())
    finally:
        again.close()


def run_script(app: App, env: Mapping[str, str], dotenv: str = "") -> tuple[int | None, str]:
    """Run the target's file as `python FILE`; returns its exit status (None: it kept running) and its output."""
    assert app.target.file
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="check-"))
        file = copy_alone(app.target.file, Path(folder) / "alone", dotenv)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        path = {"PYTHONPATH": str(app.target.file.parent), "PYTHONUNBUFFERED": "1"}
        given = {"OPENAI_BASE_URL": app.model.url, "PORT": port}
        out = stack.enter_context(tempfile.TemporaryFile())
        script = subprocess.Popen(
            confined([sys.executable, str(file)]),
            cwd=file.parent,
            env={name: value for name, value in (kept | path | given | dict(env)).items() if value},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            script.wait(timeout=SCRIPT_S)
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(script.pid, signal.SIGKILL)
            script.kill()
            script.wait()
            return None, beginning(out)
        return script.returncode, beginning(out)
