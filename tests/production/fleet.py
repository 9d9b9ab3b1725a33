"""Several processes of the service on one Redis and one PostgreSQL, behind HAProxy, with a model on a port."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.chapter import FOLDER
from tests.kit.serving import KEYS
from tests.production.servers import Server, free_port

START_S = 90.0
STARTED = b"Application startup complete"


class Instance:
    """One process (or one master with its workers) of the service."""

    def __init__(self, folder: Path, name: str, port: int, settings: dict[str, str], workers: int = 1) -> None:
        self.port, self.log = port, folder / f"{name}.log"
        self._settings, self._workers, self._begins = settings, workers, 0
        self.process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it, without waiting."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
        with self.log.open("ab") as log:
            self._begins = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "production", "--workers", str(self._workers)],
                cwd=FOLDER, env=kept | self._settings | {"PORT": str(self.port)}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until it is ready, with all its workers: those that still import would slow down the others."""
        assert self.process
        until = time.monotonic() + START_S
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(self.log.read_text(encoding="utf-8")[-4000:])
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        if self.log.read_bytes()[self._begins :].count(STARTED) < self._workers:
            return False
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{self.port}/health/ready", timeout=5).status_code == 200
        return False

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)

    def terminate(self) -> int:
        """End it as a platform does; returns the exit status."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def lines(self) -> list[dict[str, object]]:
        """Return what it logged as JSON."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found


def settings_of(redis_url: str, database_url: str, model_url: str, **more: str) -> dict[str, str]:
    """Return the environment of an instance."""
    return {
        "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": model_url, "API_KEY": ",".join(KEYS), "REDIS_URL": redis_url,
        "DATABASE_URL": database_url, "RATE_LIMIT": "100000", "DRAIN_S": "10", "STATE_DB": ":memory:", **more,
    }  # fmt: skip


BALANCER = """
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    option redispatch 2
    retries 3
    retry-on conn-failure
frontend all
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    balance roundrobin
    option httpchk GET /health/ready
    errorfile 503 {errorfile}
{servers}
"""
REFUSED = "HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def balancer(folder: Path, ports: list[int]) -> Iterator[str]:
    """Run HAProxy before the instances; yields its address."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program
    port, error = free_port(), folder / "503.http"
    error.write_text(REFUSED, encoding="ascii", newline="")
    servers = "\n".join(
        f"    server s{each} 127.0.0.1:{each} check inter 200ms fall 1 rise 1 maxconn 200" for each in ports
    )
    config = folder / "haproxy.cfg"
    config.write_text(BALANCER.format(port=port, errorfile=error, servers=servers), encoding="ascii")
    server = Server([program, "-db", "-f", str(config)], port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def instances(folder: Path, settings: dict[str, str], count: int = 3, workers: int = 1) -> Iterator[list[Instance]]:
    """Run several instances."""
    fleet = [Instance(folder, f"i{number}", free_port(), settings, workers) for number in range(count)]
    try:
        for each in fleet:
            each.begin()
        for each in fleet:
            each.wait()
        yield fleet
    finally:
        for each in fleet:
            each.kill()
