"""A target: a file, `file:name`, a URL, a folder; started in a process of its own, and told apart when it cannot."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.clock import Clock
from tests.kit.confine import confined, confinement, pid_seen_from_here
from tests.kit.contract import Form

CHILD = Path(__file__).with_name("child.py")
PATIENCE_S = 20.0
FORK_S = 60.0  # the first one waits for all the imports
ROOT = Path(__file__).resolve().parents[2]
KEPT = ("PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "COMSPEC", "PATHEXT")
KEYS = ("check-key-a", "check-key-b")
NO_PROCESS = 2**31 - 1  # above every process id: signals to it reach nobody


class CannotRun(Exception):
    """Nothing could be judged, and what to do about it. Never the same as "wrong".

    `output` is what a target printed before it gave up.
    """

    output = ""


@dataclass(frozen=True)
class Target:
    """What to judge. Exactly one of `file` and `url` is set; `name` is the app or factory in the file."""

    file: Path | None = None
    name: str | None = None
    url: str | None = None
    keys: tuple[str, ...] = ()
    form: Form = Form.APP
    given: str = field(default="", compare=False)  # as the learner typed it

    @classmethod
    def parse(cls, text: str, keys: str = "", form: Form = Form.APP) -> Target:
        """Read `FILE`, `FILE:name` or a URL, or what is to be read: any file, or a folder.

        Raises CannotRun with the next action.
        """
        if form is Form.FILES:
            found = Path(text).expanduser().resolve()
            if not found.exists():
                raise CannotRun(f"no such file or folder: {text}\nMINE takes the folder that holds your files")
            return cls(file=found, form=form, given=text)
        known = tuple(k for k in keys.split(",") if k)
        if re.match(r"https?://", text):
            return cls(url=text.rstrip("/"), keys=known, form=form)
        path, name = text, None
        if match := re.fullmatch(r"(.*\.py):(\w+)", text):
            path, name = match.groups()
        file = Path(path).expanduser().resolve()
        if file.is_dir():
            raise CannotRun(f"{path} is a folder: name the file in it, as MINE={path.rstrip('/')}/your_file.py")
        if not file.is_file():
            near = sorted(p.name for p in file.parent.glob("*.py"))[:8] if file.parent.is_dir() else []
            raise CannotRun(f"no such file: {path}" + (f" (there: {', '.join(near)})" if near else ""))
        if file.suffix != ".py":
            raise CannotRun(f"{path} is not a Python file: MINE takes a .py file, FILE.py:name or a URL")
        return cls(file=file, name=name, keys=known, form=form, given=path)

    def __str__(self) -> str:
        if self.url:
            return self.url
        assert self.file
        return self.file.name + (f":{self.name}" if self.name else "")


@dataclass
class Process:
    """A started target."""

    pid: int
    port: int
    clock: Clock
    folder: Path
    status: Exited
    _closed: bool = field(default=False, repr=False)

    def output(self) -> str:
        """Return what the target has printed so far, both streams, undecodable bytes escaped."""
        return _tail(self.folder / "output")

    def stop(self) -> None:
        """End the target and whatever it started."""
        if self._closed:
            return
        self._closed = True
        _kill(self.pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # nothing is asked of how it ends
        self.status.wait(5)
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self.clock.close()
        _remove(self.folder)


class Exited:
    """The exit status of a process, once it is known: the number that `subprocess` would give."""

    def __init__(self) -> None:
        self.code: int | None = None
        self._event = threading.Event()

    def set(self, code: int) -> None:
        """Note how the process ended."""
        self.code = code
        self._event.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end; False when it has not come."""
        return self._event.wait(timeout_s)


class Starter:
    """Starts targets; where fork exists, from a zygote that has the web stack imported already."""

    def __init__(self) -> None:
        self._zygote: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._started: dict[str, tuple[int, Exited]] = {}  # by the job's ready-file
        self._running: dict[int, Exited] = {}
        self._news = threading.Condition()

    def start(
        self,
        target: Target,
        *,
        model_url: str,
        env: Mapping[str, str] | None = None,
        at: float | None = None,
        patience_s: float = PATIENCE_S,
        dotenv: str | None = None,
    ) -> Process:
        """Start a file's app and wait until its lifespan has begun; raises CannotRun in the learner's words.

        `env` is added to the allow-list; a None-like empty value removes a variable. `at` sets the app's clock.
        With `dotenv` a copy of the file is started in an empty folder, beside a `.env` of this text ("" for no `.env`).
        """
        assert target.file
        folder = Path(tempfile.mkdtemp(prefix="check-"))
        file = target.file if dotenv is None else copy_alone(target.file, folder / "alone", dotenv)
        clock = Clock(folder / "clock")
        if at is not None:
            clock.advance(at - time.time())
        (folder / "home").mkdir()
        given = {
            "OPENAI_API_KEY": "sk-check-kit",
            "OPENAI_BASE_URL": model_url,
            "API_KEY": ",".join(KEYS),
            "API_KEYS": ",".join(KEYS),
            "HOME": str(folder / "home"),
            "USERPROFILE": str(folder / "home"),  # what Windows calls it
            "COSTS_DB": ":memory:",  # our 19.6.3 keeps a file; a check starts from nothing and leaves nothing
            "PYTHONDONTWRITEBYTECODE": "1",
            "SSL_CERT_DIR": str(folder / "home"),  # no certificates: reading them is slow, TLS is not used
            **(env or {}),
        }
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        job: dict[str, Any] = {
            "file": str(file),
            "name": target.name,
            "folder": str(file.parent),
            "path": [] if dotenv is None else [str(target.file.parent)],
            "env": {name: value for name, value in (kept | given).items() if value},
            "clock": str(clock.path),
            "ready": str(folder / "ready.json"),
            "output": str(folder / "output"),
            "patience_s": patience_s - 1,
            **{name: value for name, value in confinement().items() if name in ("notes", "own")},
        }
        pid, status = self._launch(job)
        report, ended = _await(Path(job["ready"]), status, patience_s)
        process = Process(pid, report.get("port", 0), clock, folder, status)
        if "port" not in report:
            output = process.output()
            process.stop()
            cannot = CannotRun(in_words(report, target, output, ended, patience_s))
            cannot.output = output
            raise cannot
        return process

    def _launch(self, job: dict[str, Any]) -> tuple[int, Exited]:
        if not hasattr(os, "fork"):
            status = Exited()
            popen = subprocess.Popen(confined([sys.executable, str(CHILD), json.dumps(job)]))
            threading.Thread(target=lambda: status.set(popen.wait()), daemon=True).start()
            return popen.pid, status
        with self._lock:
            if self._zygote is None or self._zygote.poll() is not None:
                self._warm_up()
            assert self._zygote and self._zygote.stdin
            self._zygote.stdin.write(json.dumps(job).encode() + b"\n")
            self._zygote.stdin.flush()
        with self._news:
            if not self._news.wait_for(lambda: job["ready"] in self._started, FORK_S):
                raise CannotRun(f"no process could be started within {FORK_S:.0f} s: is this machine very busy?")
            return self._started.pop(job["ready"])

    def _warm_up(self) -> None:
        command = confined([sys.executable, str(CHILD), "--zygote"])
        self._zygote = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self._listener = threading.Thread(target=self._listen, args=(self._zygote,), daemon=True)
        self._listener.start()
        atexit.register(self.close)

    def _listen(self, zygote: subprocess.Popen[bytes]) -> None:
        assert zygote.stdout
        for line in zygote.stdout:
            news = json.loads(line)
            with self._news:
                if "job" in news:
                    status = self._running[news["pid"]] = Exited()
                    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # ended before it was looked up
                        self._started[news["job"]] = pid_seen_from_here(zygote.pid, news["pid"]), status
                    self._started.setdefault(news["job"], (NO_PROCESS, status))
                elif "status" in news:
                    self._running.pop(news["pid"]).set(news["status"])
                self._news.notify_all()

    def close(self) -> None:
        """End the zygote; targets are ended by whoever started them."""
        with self._lock:
            zygote, self._zygote = self._zygote, None
        if zygote and zygote.stdin and zygote.stdout:
            zygote.stdin.close()
            zygote.wait(5)
            self._listener.join(5)
            zygote.stdout.close()


def copy_alone(file: Path, folder: Path, dotenv: str) -> Path:
    """Copy a file into a new folder, with a `.env` beside it unless that is empty; returns the copy."""
    folder.mkdir()
    if dotenv:
        (folder / ".env").write_text(dotenv, encoding="utf-8")
    return Path(shutil.copy(file, folder))


def in_words(report: dict[str, Any], target: Target, output: str, code: int | None, patience_s: float) -> str:
    """Say why a target could not be judged, and what to do next."""
    assert target.file
    file, line = target.file.name, report.get("line")
    at = f" at line {line}" if line else ""
    match report.get("cannot"):
        case "syntax":
            return f"{file} is not valid Python{at}: {report['message']}"
        case "import" if report.get("missing"):
            package = report["missing"].split(".")[0].replace("_", "-")
            return (
                f"importing {file} stopped{at}: the package {report['missing']} is not installed.\n"
                f"Install it into the environment that runs the checks (pip install {package}), or use one of the\n"
                "packages in requirements.txt."
            )
        case "import":
            return f"importing {file} stopped{at}: {report['message']}"
        case "exits":
            return (
                f"importing {file} ended the program{at} (exit {report['message']}).\n"
                'Put what should only happen when the file is run under: if __name__ == "__main__":'
            )
        case "starts-server":
            return (
                f"{file} starts a server while it is imported (uvicorn.run{at}).\n"
                'Put it under: if __name__ == "__main__":'
            )
        case "no-app":
            found, factories = report["found"], report["factories"]
            words = f"no FastAPI object named '{report['wanted']}' in {file}"
            if found:
                return f"{words}; found: {', '.join(found)}.\nSay which one: MINE={target.given or file}:{found[0]}"
            if factories:
                return (
                    f"{words}; found the factory {factories[0]}().\nSay so: MINE={target.given or file}:{factories[0]}"
                )
            return f"{words}, and no other app or factory either.\nThe checks need one: app = FastAPI()"
        case "factory":
            return f"{report['name']}() in {file} stopped: {report['message']}"
        case "not-an-app":
            return f"'{report['name']}' in {file} is a {report['message']}, not an app"
        case "lifespan":
            return f"{file} was imported, but the app failed while starting up:\n{last_lines(output)}"
    if code is not None:
        return f"{file} ended (exit status {code}) before the app was up:\n{last_lines(output)}"
    busy = re.findall(rf'File "[^"]*{re.escape(file)}", line (\d+)', output)
    where = f", at line {busy[0]}" if busy else ""
    phase = "started" if "Waiting for application startup" in output else "imported"
    return f"{file} was still busy after {patience_s:.0f} s{where}: does something wait or loop while it is {phase}?"


def _await(ready: Path, status: Exited, patience_s: float) -> tuple[dict[str, Any], int | None]:
    """Return what the target says of itself, and its exit status if it ended without a word."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        ended = status.wait(0.005)
        if ready.exists():
            return dict(json.loads(ready.read_text(encoding="utf-8"))), None
        if ended:
            return {}, status.code
    return {}, None


def _kill(pid: int, sig: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, sig)


def _tail(path: Path, size: int = 1_000_000) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        return file.read().decode("utf-8", "backslashreplace")


def last_lines(output: str, count: int = 4) -> str:
    """Return the end of an output, to be read in a report."""
    lines = [line for line in output.splitlines() if line.strip()]
    return "\n".join(f"  | {line[:200]}" for line in lines[-count:]) or "  | (it printed nothing)"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
