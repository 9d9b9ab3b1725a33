"""The dynamic half: an app in a process of its own, canaries, and what came out of it."""

import contextlib
import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from security_audit.findings import Finding

WALKER = Path(__file__).with_name("walker.py")
APP_S = 60.0  # how long an app may take to be walked through
LONG = 100_000  # characters; a chat that accepts them has no limit worth the name


@dataclass(frozen=True)
class Canaries:
    """Values that exist nowhere else: wherever one comes out, it was let out."""

    openai_key: str
    api_key: str
    message: str
    model_error: str

    @classmethod
    def fresh(cls, new: Callable[[], str] = lambda: uuid.uuid4().hex) -> "Canaries":
        """Make new ones."""
        return cls(f"sk-{new()}", f"key-{new()}", f"canary {new()}", f"internal {new()}")


@dataclass(frozen=True)
class Exchange:
    """One request of the walk, and what came."""

    probe: str  # what it tries out, as the walker calls it: "no key", "wrong key", "chat", "empty body", "long", ...
    method: str
    path: str
    status: int
    body: str


def audit_app(app: str, folder: Path, env: Mapping[str, str], *, timeout_s: float = APP_S) -> list[Finding]:
    """Start `module:factory` from this folder in a child process, walk its routes, and judge what came out.

    The child gets `env`, canaries for keys, and a model on this machine; it may connect to nothing else.
    """
    canaries = Canaries.fresh()
    with tempfile.TemporaryDirectory(prefix="audit-") as scratch, model_server(canaries) as url:
        report, output = Path(scratch) / "exchanges.json", Path(scratch) / "output"
        job = {"app": app, "folder": str(folder.resolve()), "report": str(report), **asdict(canaries)}
        given = {"OPENAI_API_KEY": canaries.openai_key, "OPENAI_BASE_URL": url, "API_KEY": canaries.api_key}
        command = [sys.executable, str(WALKER), json.dumps(job)]
        try:
            with output.open("wb") as file:
                subprocess.run(  # noqa: S603 (this interpreter and our own script, no shell)
                    command,
                    env={**env, **given, "HOME": scratch},
                    cwd=scratch,
                    stdout=file,
                    stderr=file,
                    timeout=timeout_s,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return [Finding("could-not-check", app, 1, f"the app was still busy after {timeout_s:g} s")]
        said = output.read_text(encoding="utf-8", errors="replace")
        if not report.exists():
            why = said.strip().splitlines()[-1:] or ["it ended without a word"]
            return [Finding("could-not-check", app, 1, f"the app did not start: {hide(why[0], canaries)[:160]}")]
        exchanges = [Exchange(**entry) for entry in json.loads(report.read_text(encoding="utf-8"))]
    return judge(app, exchanges, said, canaries)


def judge(app: str, exchanges: list[Exchange], output: str, canaries: Canaries) -> list[Finding]:
    """Turn what was sent, answered and printed into findings."""
    found: dict[tuple[str, str], Finding] = {}

    def find(rule: str, evidence: str, detail: str = "") -> None:
        found.setdefault(
            (rule, evidence), Finding(rule, app, 1, hide(evidence, canaries)[:160], 0, hide(detail, canaries)[:160])
        )

    for e in exchanges:
        place = f"{e.method} {e.path}"
        if canaries.openai_key in e.body or (canaries.api_key in e.body):
            find("secret-in-response", place, e.body)
        traced = re.search(r"Traceback \(most|File \"[^\"]+\", line|/[\w.-]+/[\w./-]+\.py\b", e.body)
        if canaries.model_error in e.body or traced:
            find("error-leak", place, f"{e.status} {e.body}")
        if e.probe in ("empty body", "not JSON", "wrong types", "long") and e.status == 500:
            find("input-crash", place, f"{e.probe}: {e.status} {e.body}")
        if e.probe == "long" and 0 < e.status < 400:
            find("no-length-limit", place, f"{LONG:,} characters were accepted")
        if e.probe == "no key" and 0 < e.status < 400:
            if re.fullmatch(r"/(docs|redoc|openapi\.json)(/.*)?", e.path):
                find("docs-open", place)
            elif not re.fullmatch(r"/|.*/(health|healthz|ready|readyz|live|livez|ping|status)|/favicon.ico", e.path):
                find("route-without-key", place)
        if e.status == 0 or (e.probe == "chat" and e.status in (401, 403, 429)):
            find("could-not-check", place, f"{e.probe}: {e.body or e.status}")
    for secret in (canaries.openai_key, canaries.api_key):
        if secret in output:
            find("secret-in-log", next(line.strip() for line in output.splitlines() if secret in line))
    if canaries.message in output:
        find("message-in-log", next(line.strip() for line in output.splitlines() if canaries.message in line))
    if not any(e.probe == "chat" and e.status == 200 for e in exchanges):
        find("could-not-check", "no chat was answered, so logs and errors of the model were not seen")
    return list(found.values())


def hide(text: str, canaries: Canaries) -> str:
    """Replace canaries by their names, so that a finding reads the same in every run."""
    for name, value in asdict(canaries).items():
        text = text.replace(value, f"<{name}>")
    return text


@contextlib.contextmanager
def model_server(canaries: Canaries) -> Iterator[str]:
    """Serve a model on a port of this machine: it answers, and fails in its own words when a message says so."""

    class Model(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Answer a chat completion."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8", "replace")
            fails = "please fail" in body
            message = {"role": "assistant", "content": "a reply"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            answer = {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": "gpt-4o-mini",
                "choices": [choice],
                "usage": usage,
            }
            data = json.dumps({"error": {"message": canaries.model_error}} if fails else answer).encode()
            self.send_response(400 if fails else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
