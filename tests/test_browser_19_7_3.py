"""19.7.3 in a real browser: the page works under its own policy, and the browser has nothing to complain about."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from exercise_3_19_7_solution import create_app
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from tests.kit.serving import SETTINGS

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")


@pytest.fixture
def url() -> Iterator[str]:
    app: FastAPI = create_app(SETTINGS)

    @app.get("/forgotten")
    async def forgotten() -> HTMLResponse:
        return HTMLResponse("<p id=p>as written</p><script>p.textContent = 'changed'</script>")

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", server_header=False, ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def look_at(url: str, profile: Path) -> tuple[str, list[str]]:
    """Return the page as it stands when its scripts have run, and the lines of its console."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=4000"]
    command = [BROWSER or "", *flags, f"--user-data-dir={profile}", "--dump-dom", url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


def test_the_docs_page_works_and_the_console_is_empty(url: str, tmp_path: Path) -> None:
    page, console = look_at(f"{url}/docs", tmp_path)
    assert "<h2>POST /v1/chat</h2>" in page
    assert '"message": "hello"' in page
    assert console == []


def test_a_page_without_a_policy_of_its_own_runs_nothing(url: str, tmp_path: Path) -> None:
    page, console = look_at(f"{url}/forgotten", tmp_path)
    assert "as written" in page
    assert any("Content Security Policy" in line for line in console)
