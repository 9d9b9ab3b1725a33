"""19.3.1: what is asked before and after a deployment, of good services and bad ones; the platforms' files."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import ssl
import threading
import tomllib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml  # type: ignore[import-untyped]
from exercise_1_19_3_solution import (
    CLOUD_RUN_GRACE_S,
    LOCAL,
    LONGEST_S,
    SAMPLES,
    TIMEOUT_S,
    Answer,
    Finding,
    fetch,
    main,
    notes,
    platform_files,
    preflight,
    verify,
)

from shared.config import CHAPTER, ROOT
from tests.kit.dockerfile import read

URL = "https://agent.test"
DEPLOY = CHAPTER / "deploy"
GOOD = """FROM python:3.13.12-slim
ENV HOST=0.0.0.0 \\
    PORT=8000
USER 10001:10001
HEALTHCHECK CMD ["python", "-c", "... /health"]
ENTRYPOINT ["python", "agent.py"]
CMD ["--serve"]
"""


class Service:
    """A deployed service in miniature; `changes` are answers that it gives in place of the right ones."""

    def __init__(self, changes: Mapping[str, Answer] | None = None, *, limit: int = 10**6) -> None:
        self.changes, self.limit, self.asked = dict(changes or {}), limit, list[tuple[str, str, str | None]]()

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str | None = None
    ) -> Answer:
        path = url.removeprefix(URL).removeprefix("http://127.0.0.1:8000")
        key = (headers or {}).get("X-API-Key")
        self.asked.append((method, path, key))
        what = self.what(path, key, body)
        right = {"no key": 401, "wrong key": 401, "empty": 422, "limited": 429, "other": 404}
        retry = {"retry-after": "60"} if what == "limited" else {}
        return self.changes.get(what) or Answer(right.get(what, 200), retry, '{"version": "abc"}', len(self.asked))

    def what(self, path: str, key: str | None, body: str | None) -> str:
        if path == "/health":
            return "health"
        if path != "/v1/chat":
            return "other"
        if key != "k":
            return "wrong key" if key else "no key"
        if json.loads(body or "")["message"] == "":
            return "empty"
        chats = [a for a in self.asked if a[1] == "/v1/chat" and a[2] == "k"]
        return "limited" if len(chats) > self.limit else "chat"


def bad(findings: Iterator[Finding]) -> list[str]:
    return [finding.question for finding in findings if finding.ok is False]


# ---------------------------------------------------------------- verify


def test_a_good_service_is_clean_and_asked_little() -> None:
    service = Service()
    findings = list(verify(URL, "k", fetch=service))
    assert bad(iter(findings)) == []
    assert len([a for a in service.asked if a[2] == "k"]) == 2, "chats cost money"
    assert len(service.asked) == 6 + SAMPLES
    answers = {finding.question: finding.answer for finding in findings}
    assert answers["health"] == "200 abc"
    assert answers["a chat"] == "200"
    assert answers["cold start"] == "1000 ms to the first answer"
    assert answers["p50 of /health"] == "9000 ms from here, connection included"
    assert {f.question for f in findings if f.ok is None} == {
        "cold start", "p50 of /health", "strict-transport-security", "x-content-type-options",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("what", "answer", "found"),
    [
        ("health", Answer(503, {}, "", 0.1), "health"),
        ("no key", Answer(200, {}, "", 0.1), "a chat without a key"),
        ("wrong key", Answer(200, {}, "", 0.1), "a chat with a wrong key"),
        ("empty", Answer(200, {}, "", 0.1), "an empty message"),
        ("empty", Answer(500, {}, "", 0.1), "an empty message"),
        ("empty", Answer(422, {}, "Traceback (most recent call last)", 0.1), "an empty message"),
        ("no key", Answer(401, {}, "the key sk-abc is not it", 0.1), "a chat without a key"),
        ("chat", Answer(502, {}, "", 0.1), "a chat"),
        ("other", Answer(200, {}, "", 0.1), "a path that does not exist"),
    ],
)
def test_failure_each_fault_is_found_by_its_name(what: str, answer: Answer, found: str) -> None:
    findings = list(verify(URL, "k", fetch=Service({what: answer})))
    assert bad(iter(findings)) == [found]
    leaks = answer.body != ""
    assert leaks == any("with internals" in finding.answer for finding in findings)


@pytest.mark.parametrize(
    ("what", "status"), [("no key", 403), ("wrong key", 403), ("empty", 400), ("empty", 422), ("no key", 401)]
)
def test_either_of_two_usual_answers_is_fine(what: str, status: int) -> None:
    assert bad(verify(URL, "k", fetch=Service({what: Answer(status, {}, "", 0.1)}))) == []


def test_the_limit_is_only_tried_when_asked_for() -> None:
    service = Service(limit=2 + 11)  # two messages with a key came before
    assert bad(verify(URL, "k", limit=10, fetch=service)) == ["request 11 in a minute"], "it came one too late"
    good = list(verify(URL, "k", limit=10, fetch=Service(limit=2 + 10)))
    assert bad(iter(good)) == []
    assert Finding("request 11 in a minute", True, "429, Retry-After 60") in good
    silent = Service({"limited": Answer(429, {}, "", 0.1)}, limit=10)
    assert bad(verify(URL, "k", limit=10, fetch=silent)) == ["request 11 in a minute"], "a Retry-After is missing"


@pytest.mark.parametrize(
    ("url", "fine", "answer"),
    [(URL, True, "https"), (LOCAL, True, "http, on this machine"), ("http://agent.test", False, "http")],
)
def test_edge_without_tls_only_on_this_machine(url: str, fine: bool, answer: str) -> None:
    assert next(verify(url, "k", fetch=Service())) == Finding("TLS", fine, answer)


def test_headers_are_noted_as_they_are() -> None:
    service = Service({"health": Answer(200, {"x-content-type-options": "nosniff"}, "", 0.1)})
    answers = {f.question: f.answer for f in verify(URL, "k", fetch=service)}
    assert answers["x-content-type-options"] == "nosniff"
    assert answers["health"] == "200 (names no version)"
    assert answers["strict-transport-security"].startswith("not set")


def test_notes_leave_room_for_what_only_the_author_knows() -> None:
    findings = [Finding("a", True, "x"), Finding("b", False, "y"), Finding("c", None, "z")]
    lines = notes(URL, findings).splitlines()
    assert lines[4] == f"Public URL: {URL}"
    assert lines[-3:] == ["| a | ok | x |", "| b | NOT OK | y |", "| c | noted | z |"]
    assert notes(None, findings).startswith("| Asked")


def test_answers_and_findings_are_values() -> None:
    for value, name in ((Finding("a", True, "x"), "ok"), (Answer(200, {}, "", 0.1), "status")):
        with pytest.raises(AttributeError):
            setattr(value, name, 0)


# ---------------------------------------------------------------- over a real connection


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(418)
            self.send_header("X-Seen", f"{self.path} {self.headers['X-API-Key']} {body}")
            self.end_headers()
            self.wfile.write(b"\xff tea")

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_fetch_sends_and_reads_one_request(server: str) -> None:
    answer = fetch("POST", f"{server}/v1/chat", {"X-API-Key": "k"}, "hi")
    assert (answer.status, answer.headers["x-seen"], answer.body) == (418, "/v1/chat k hi", "\ufffd tea")
    assert 0 < answer.seconds < 10
    assert TIMEOUT_S == 90


@contextlib.contextmanager
def tls_server(certificate: trustme.LeafCert) -> Iterator[str]:
    """Serve over TLS what a good service answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            answer = service(self.command, f"{URL}{self.path}", {"X-API-Key": self.headers["X-API-Key"]}, body)
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        do_GET = do_POST

        def log_message(self, *args: object) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, *args: object) -> None:
            """Say nothing of a client that turns away."""

    service = Service()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with Server(("127.0.0.1", 0), Handler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"https://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Return an authority that this process trusts."""
    trusted = trustme.CA()
    trusted.cert_pem.write_to_path(str(tmp_path / "trusted.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
    return trusted


def test_tls_with_a_trusted_certificate_is_fine(authority: trustme.CA, capsys: pytest.CaptureFixture[str]) -> None:
    with tls_server(authority.issue_cert("127.0.0.1")) as url:
        assert main(["verify", url, "--key", "k"]) == 0
    out = capsys.readouterr().out
    assert "| TLS | ok | https, on this machine |" in out
    assert "| a chat | ok | 200 |" in out


@pytest.mark.parametrize("wrong", ["expired", "another name", "another authority"])
def test_failure_a_certificate_that_proves_nothing_is_found_and_no_key_is_sent(
    authority: trustme.CA, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    certificate, words = {
        "expired": (authority.issue_cert("127.0.0.1", not_after=yesterday), "certificate has expired"),
        "another name": (authority.issue_cert("127.0.0.2"), "IP address mismatch"),
        "another authority": (trustme.CA().issue_cert("127.0.0.1"), "unable to get local issuer"),
    }[wrong]
    with tls_server(certificate) as url:
        assert main(["verify", url, "--key", "k"]) == 1
    findings = [line for line in capsys.readouterr().out.splitlines() if "| ok |" in line or "NOT OK" in line]
    assert len(findings) == 1
    assert findings[0].startswith("| TLS | NOT OK |") and words in findings[0]


def test_failure_plain_http_where_tls_is_spoken_and_the_reverse(
    authority: trustme.CA, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", server.replace("http://", "https://"), "--key", "k"]) == 1
    assert "| TLS | NOT OK | " in capsys.readouterr().out
    with (
        tls_server(authority.issue_cert("127.0.0.1")) as url,
        pytest.raises(SystemExit) as stopped,
    ):
        main(["verify", url.replace("https://", "http://"), "--key", "k"])
    assert stopped.value.code == 2
    assert "does not answer" in capsys.readouterr().err


def test_failure_nobody_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for url, words in (("http://127.0.0.1:1", "does not answer"), ("ftp://x", "not an address")):
        with pytest.raises(SystemExit) as stopped:
            main(["verify", url])
        assert stopped.value.code == 2
        assert words in capsys.readouterr().err


# ---------------------------------------------------------------- preflight


def asked(
    tmp_path: Path, dockerfile: str = GOOD, frozen: str = "a==1\n", ignored: str = "**/.env\n", deploy: Path = DEPLOY
) -> dict[str, Finding]:
    files = {"Dockerfile": dockerfile, "requirements.txt": frozen, ".dockerignore": ignored}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = preflight(tmp_path / "Dockerfile", tmp_path / "requirements.txt", tmp_path / ".dockerignore", deploy)
    return {finding.question: finding for finding in found}


def test_what_is_ready_is_clean(tmp_path: Path) -> None:
    found = asked(tmp_path)
    assert [f for f in found.values() if f.ok is False] == []
    assert found["pins"].answer == "1 packages, 0 without a version"
    assert found["image: port"].answer == "PORT=8000, which a platform overrides"
    assert found["Cloud Run: grace"] == Finding("Cloud Run: grace", None, "10 s cuts off the longest request (120 s)")
    assert {question: f.answer for question, f in found.items() if question.startswith(("image", "build"))} == {
        "image: user": "10001:10001",
        "image: base": "python:3.13.12-slim",
        "image: health path": "HEALTHCHECK asks /health",
        "image: SIGTERM": "exec form",
        "image: port": "PORT=8000, which a platform overrides",
        "image: secrets": "none in ENV or ARG",
        "build context": ".env is left out",
    }


@pytest.mark.parametrize(
    ("old", "new", "question"),
    [
        ("USER 10001:10001\n", "", "image: user"),
        ("USER 10001:10001", "USER 0:0", "image: user"),
        ("USER 10001:10001", "USER me\nUSER root", "image: user"),
        ("3.13.12-slim", "3.13-slim", "image: base"),
        ("/health", "/", "image: health path"),
        ("HEALTHCHECK", "# HEALTHCHECK", "image: health path"),
        ('["python", "agent.py"]', "python agent.py", "image: SIGTERM"),
        ("PORT=8000", "OTHER=1", "image: port"),
        ("USER", "ENV OPENAI_API_KEY=abc\nUSER", "image: secrets"),
        ("FROM", "ARG SECRET=abc\nFROM", "image: secrets"),
    ],
)
def test_each_fault_of_a_dockerfile_is_found_by_its_name(tmp_path: Path, old: str, new: str, question: str) -> None:
    text = GOOD.replace(old, new, 1) if "ARG" not in new else GOOD + "ARG SECRET=abc\n"
    assert [f.question for f in asked(tmp_path, text).values() if f.ok is False] == [question]


def test_abuse_the_last_stage_counts_and_secrets_count_in_every_stage(tmp_path: Path) -> None:
    builder = "FROM python:3.13.12-slim AS b\nUSER root\nENV TOKEN=abc\n"
    assert [f.question for f in asked(tmp_path, builder + GOOD).values() if f.ok is False] == ["image: secrets"]


def test_edge_frozen_lists_and_ignore_files(tmp_path: Path) -> None:
    assert asked(tmp_path, frozen="# c\na==1\nb>=2\n")["pins"] == Finding(
        "pins", False, "2 packages, 1 without a version"
    )
    assert asked(tmp_path, frozen="# only a comment\n")["pins"].ok is False
    assert asked(tmp_path, ignored=".env\n")["build context"].ok
    assert not asked(tmp_path, ignored="# .env\n")["build context"].ok


def test_a_platform_that_does_not_wait_is_found(tmp_path: Path) -> None:
    for file in DEPLOY.iterdir():
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    toml = (tmp_path / "fly.toml").read_text(encoding="utf-8")
    (tmp_path / "fly.toml").write_text(re.sub(r"kill_timeout.*\n", "", toml).replace("/health", "/"), encoding="utf-8")
    railway = (tmp_path / "railway.json").read_text(encoding="utf-8")
    (tmp_path / "railway.json").write_text(railway.replace(": 120", ": 119"), encoding="utf-8")
    found = asked(tmp_path, deploy=tmp_path)
    assert (found["Fly.io: health path"].answer, found["Render: health path"].answer) == ("/", "/health")
    assert [f.question for f in found.values() if f.ok is False] == [
        "Fly.io: health path",
        "Fly.io: grace",
        "Railway: grace",
    ]
    assert found["Fly.io: grace"].answer == "5 s cuts off the longest request (120 s)"
    assert found["Render: grace"].answer == "120 s is enough (120 s)"


def test_what_a_platform_does_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "render.yaml").write_text("services: [{type: web}]\n", encoding="utf-8")
    (tmp_path / "fly.toml").write_text("[http_service]\n", encoding="utf-8")
    (tmp_path / "railway.json").write_text('{"deploy": {}}', encoding="utf-8")
    (tmp_path / "cloudrun.yaml").write_text("spec: {template: {spec: {containers: [{}]}}}\n", encoding="utf-8")
    defaults = [("Render", "", 30.0), ("Fly.io", "", 5.0), ("Railway", "", 0.0), ("Cloud Run", "", 10.0)]
    assert list(platform_files(tmp_path)) == defaults
    found = asked(tmp_path, deploy=tmp_path)
    assert found["Render: health path"] == Finding("Render: health path", False, "none")


# What the platforms' references know of what we use, key by key: render.com/docs/blueprint-spec,
# fly.io/docs/reference/configuration, docs.railway.com/config-as-code/reference and
# cloud.google.com/run/docs/reference/yaml/v1.
SECRET = {"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}
KNOWN: dict[str, dict[str, Any]] = {
    "render.yaml": {
        "services": [
            {
                "type": str, "name": str, "runtime": str, "plan": str, "dockerfilePath": str, "dockerContext": str,
                "healthCheckPath": str, "maxShutdownDelaySeconds": int,
                "envVars": [{"key": str, "value": str, "sync": bool, "generateValue": bool}],
            }
        ]
    },
    "fly.toml": {
        "app": str, "primary_region": str, "kill_signal": str, "kill_timeout": str,
        "build": {"dockerfile": str}, "env": {"ENVIRONMENT": str, "PORT": str},
        "http_service": {
            "internal_port": int, "force_https": bool, "auto_stop_machines": str, "auto_start_machines": bool,
            "min_machines_running": int,
            "checks": [{"method": str, "path": str, "interval": str, "timeout": str, "grace_period": str}],
        },
    },
    "railway.json": {
        "$schema": str, "build": {"builder": str, "dockerfilePath": str},
        "deploy": {
            "healthcheckPath": str, "healthcheckTimeout": int, "drainingSeconds": int, "restartPolicyType": str,
        },
    },
    "cloudrun.yaml": {
        "apiVersion": str, "kind": str, "metadata": {"name": str},
        "spec": {
            "template": {
                "metadata": {"annotations": {"autoscaling.knative.dev/maxScale": str}},
                "spec": {
                    "containerConcurrency": int, "timeoutSeconds": int,
                    "containers": [
                        {
                            "image": str, "ports": [{"containerPort": int}], "env": [SECRET],
                            "startupProbe": {"httpGet": {"path": str}},
                        }
                    ],
                },
            }
        },
    },
}  # fmt: skip


def unknown(value: Any, known: Any, where: str) -> Iterator[str]:
    """Yield what a platform's reference does not know, by name or by type."""
    if isinstance(known, dict):
        yield from (f"{where}.{key}" for key in value if key not in known)
        for key in value.keys() & known.keys():
            yield from unknown(value[key], known[key], f"{where}.{key}")
    elif isinstance(known, list):
        for item in value:
            yield from unknown(item, known[0], where)
    elif type(value) is not known:
        yield f"{where}: {value!r}"


def test_the_platforms_files_hold_only_keys_and_types_that_the_platforms_know() -> None:
    parse = {".yaml": yaml.safe_load, ".toml": tomllib.loads, ".json": json.loads}
    files = {path.name: parse[path.suffix](path.read_text(encoding="utf-8")) for path in DEPLOY.iterdir()}
    assert files.keys() == KNOWN.keys()
    assert [one for name, data in files.items() for one in unknown(data, KNOWN[name], name)] == []
    assert files["render.yaml"]["services"][0]["maxShutdownDelaySeconds"] <= 300, "the most that Render allows"
    assert files["render.yaml"]["services"][0]["plan"] != "free", "Render's free plan takes no maxShutdownDelaySeconds"
    assert int(files["fly.toml"]["kill_timeout"].removesuffix("s")) <= 300, "the most that Fly.io allows"
    assert files["railway.json"]["build"]["builder"] == "DOCKERFILE"
    assert (files["cloudrun.yaml"]["apiVersion"], files["cloudrun.yaml"]["kind"]) == (
        "serving.knative.dev/v1",
        "Service",
    )
    railway = files["railway.json"] | {"deploy": {"drainingSeconds": "120", "gracePeriod": 1}}
    assert sorted(unknown(railway, KNOWN["railway.json"], "r")) == [
        "r.deploy.drainingSeconds: '120'",
        "r.deploy.gracePeriod",
    ]


def test_the_platforms_files_fit_the_image() -> None:
    assert (LONGEST_S, CLOUD_RUN_GRACE_S) == (120, 10)
    assert list(platform_files(DEPLOY)) == [
        ("Render", "/health", 120.0), ("Fly.io", "/health", 120.0), ("Railway", "/health", 120.0),
        ("Cloud Run", "/health", CLOUD_RUN_GRACE_S),
    ]  # fmt: skip
    port = read(CHAPTER / "exercise_2_Dockerfile").final().env["PORT"]
    assert f"internal_port = {port}" in (DEPLOY / "fly.toml").read_text(encoding="utf-8")
    assert f"containerPort: {port}" in (DEPLOY / "cloudrun.yaml").read_text(encoding="utf-8")
    dockerfile = "part_5_production/chapter_19_deployment/exercise_2_Dockerfile"
    for name in ("render.yaml", "railway.json"):
        assert dockerfile in (DEPLOY / name).read_text(encoding="utf-8")
    assert (ROOT / dockerfile).is_file()


def test_the_script_reads_what_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.splitlines()[0].startswith("Exercise 1 (19.3): ")
    assert "| Fly.io: grace | ok |" in out
    assert "Public URL" not in out


def test_the_script_verifies_and_says_by_its_status_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_for: list[tuple[str, str, int]] = []

    def found(url: str, key: str, *, limit: int) -> Iterator[Finding]:
        asked_for.append((url, key, limit))
        yield Finding("a chat", len(asked_for) < 2, "200")

    monkeypatch.setattr("exercise_1_19_3_solution.verify", found)
    assert main(["verify", f"{URL}/", "--key", "k", "--limit", "3"]) == 0
    assert main(["verify"]) == 1
    assert asked_for == [(URL, "k", 3), (LOCAL, "dev-key-change-in-production", 0)]
    assert f"Public URL: {URL}\n" in capsys.readouterr().out
