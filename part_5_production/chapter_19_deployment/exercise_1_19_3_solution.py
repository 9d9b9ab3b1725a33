"""Exercise 1 (19.3): deploy the agent, and know before and after that it will work.

The book asks to deploy to a cloud platform, to note which one and why, what had to be changed and the public URL, and
to test it with curl. The notes are exercise_1_19_3_solution.md; this script asks the questions that they answer.

* preflight reads the Dockerfile, the frozen list and the platforms' files, before anything is built: what is found
  here costs a minute, and on the platform an evening.
* verify asks the deployed service what callers and attackers will ask, and prints its answers as Markdown notes.
* A platform kills what does not stop in time. The longest request has to fit into that time, or answers are cut off.

Run it:    python exercise_1_19_3_solution.py preflight
           python exercise_1_19_3_solution.py verify https://your-agent.example --key YOUR_KEY
           (without a URL: the container on 127.0.0.1:8000; exit status 0 clean, 1 findings, 2 usage)
Check it:  make check EX=19.3.1                           (MINE=your_notes.md checks yours)

Limit: verify sends two chats, which cost money; --limit 10 sends eleven more, to see the 429.
"""

import argparse
import contextlib
import http.client
import json
import re
import ssl
import statistics
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import MODEL_RETRIES, MODEL_TIMEOUT_S
from shared.config import CHAPTER, DEFAULT_API_KEY, ROOT

__all__ = ["Answer", "Finding", "fetch", "notes", "verify"]

LOCAL = "http://127.0.0.1:8000"
TIMEOUT_S = 90.0  # a sleeping instance takes a minute to answer first
SAMPLES = 5
LONGEST_S = 2 * MODEL_TIMEOUT_S * (1 + MODEL_RETRIES)  # one request asks the model twice, facts and summary
CLOUD_RUN_GRACE_S = 10.0


@dataclass(frozen=True)
class Finding:
    """One question and its answer; `ok` is None for what is only noted."""

    question: str
    ok: bool | None
    answer: str


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, header names in small letters, and how long it took."""

    status: int
    headers: Mapping[str, str]
    body: str
    seconds: float


Fetch = Callable[..., Answer]


def fetch(method: str, url: str, headers: Mapping[str, str] | None = None, body: str | None = None) -> Answer:
    """Send one request on a connection of its own, its certificate checked; raises OSError when none answers."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    start = time.perf_counter()
    with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=TIMEOUT_S)) as connection:
        connection.request(method, parts.path or "/", body, dict(headers or {}))
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, text, time.perf_counter() - start)


def verify(url: str, key: str, *, limit: int = 0, fetch: Fetch = fetch) -> Iterator[Finding]:
    """Ask a deployed service; with `limit`, also whether request number `limit` + 1 within a minute is a 429."""
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    try:
        first = fetch("GET", f"{url}/health")
    except ssl.SSLError as error:  # nothing more is asked of somebody who cannot say who they are
        yield Finding("TLS", False, getattr(error, "verify_message", "") or error.reason)
        return
    yield Finding("TLS", parts.scheme == "https" or local, f"{parts.scheme}{', on this machine' if local else ''}")
    version = re.search(r'"version"\s*:\s*"([^"]*)"', first.body)
    yield Finding("health", first.status == 200, f"{first.status} {version[1] if version else '(names no version)'}")
    yield Finding("cold start", None, f"{first.seconds * 1000:.0f} ms to the first answer")

    def chat(message: str, key: str | None) -> Answer:
        headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        return fetch("POST", f"{url}/v1/chat", headers, json.dumps({"message": message}))

    for question, wanted, answer in (
        ("a chat without a key", (401, 403), chat("tides", None)),
        ("a chat with a wrong key", (401, 403), chat("tides", "not-a-key")),
        ("an empty message", (400, 422), chat("", key)),
        ("a chat", (200,), chat("tides", key)),
        ("a path that does not exist", (404,), fetch("GET", f"{url}/no-such-path")),
    ):
        leak = "Traceback" in answer.body or "sk-" in answer.body
        yield Finding(
            question, answer.status in wanted and not leak, f"{answer.status}{' with internals' if leak else ''}"
        )
    if limit:
        answers = [chat("tides", key) for _ in range(limit + 1)]
        last = answers[-1]
        wait = last.headers.get("retry-after")
        yield Finding(
            f"request {limit + 1} in a minute", last.status == 429 and bool(wait), f"{last.status}, Retry-After {wait}"
        )
    for name in ("strict-transport-security", "x-content-type-options"):
        given = first.headers.get(name)
        yield Finding(name, None, given or "not set (section 19.7, exercise 3)")
    times = [fetch("GET", f"{url}/health").seconds * 1000 for _ in range(SAMPLES)]
    yield Finding("p50 of /health", None, f"{statistics.median(times):.0f} ms from here, connection included")


def notes(url: str | None, findings: list[Finding]) -> str:
    """Return the findings as Markdown; with a `url`, also the places for what only the author knows."""
    words = {True: "ok", False: "NOT OK", None: "noted"}
    rows = [f"| {finding.question} | {words[finding.ok]} | {finding.answer} |" for finding in findings]
    head = ["# My deployment", "", "Platform, and why: ...", "Changed for it: ...", f"Public URL: {url}", ""]
    return "\n".join([*(head if url else ()), "| Asked | | Answer |", "| --- | --- | --- |", *rows])


def preflight(dockerfile: Path, requirements: Path, ignored: Path, platforms: Path) -> Iterator[Finding]:
    """Read what will be deployed; `platforms` is the folder with the platforms' files."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", dockerfile.read_text(encoding="utf-8")))
    last = text[text.upper().rindex("FROM ") :]

    def of(name: str) -> list[str]:
        return re.findall(rf"(?mi)^{name}\s+(.+)$", last)

    user = (of("USER") or ["root"])[-1]
    yield Finding("image: user", user.split(":")[0] not in ("root", "0"), user)
    base = text.split()[1]
    yield Finding("image: base", bool(re.search(r":\d+\.\d+\.\d+", base)), base)
    health = " ".join(of("HEALTHCHECK"))
    yield Finding("image: health path", "/health" in health, "HEALTHCHECK asks /health" if health else "no HEALTHCHECK")
    start = (of("ENTRYPOINT") + of("CMD") or [""])[0]
    yield Finding(
        "image: SIGTERM", start.startswith("["), "exec form" if start.startswith("[") else f"a shell: {start}"
    )
    port = re.search(r"\bPORT=(\d+)", last)
    yield Finding("image: port", bool(port), f"PORT={port[1]}, which a platform overrides" if port else "no PORT")
    secret = re.search(r"(?mi)^(?:ENV|ARG)\s.*?\b(\w*(?:KEY|SECRET|TOKEN|PASSWORD))=\S", text)
    yield Finding("image: secrets", not secret, f"{secret[1]} has a value" if secret else "none in ENV or ARG")
    left_out = ignored.is_file() and bool(re.search(r"(?m)^(\*\*/)?\.env\s*$", ignored.read_text(encoding="utf-8")))
    yield Finding("build context", left_out, ".env is left out" if left_out else ".env goes to the builder")
    lines = [
        li for li in requirements.read_text(encoding="utf-8").splitlines() if li.strip() and not li.startswith("#")
    ]
    loose = [line for line in lines if "==" not in line]
    yield Finding("pins", bool(lines) and not loose, f"{len(lines)} packages, {len(loose)} without a version")
    for name, path, grace_s in platform_files(platforms):
        yield Finding(f"{name}: health path", path == "/health", path or "none")
        enough = grace_s >= LONGEST_S
        note = "cuts off the longest request" if not enough else "is enough"
        fixed = name == "Cloud Run"  # nothing to be done about it but to know it
        yield Finding(f"{name}: grace", None if fixed else enough, f"{grace_s:g} s {note} ({LONGEST_S:g} s)")


def platform_files(folder: Path) -> Iterator[tuple[str, str, float]]:
    """Yield name, health path and seconds between SIGTERM and the end, from each platform's own file."""
    import yaml  # type: ignore[import-untyped]  # it brings no types

    render = yaml.safe_load((folder / "render.yaml").read_text(encoding="utf-8"))["services"][0]
    yield "Render", render.get("healthCheckPath", ""), float(render.get("maxShutdownDelaySeconds", 30))
    fly: dict[str, Any] = tomllib.loads((folder / "fly.toml").read_text(encoding="utf-8"))
    checks = fly["http_service"].get("checks") or [{}]
    yield "Fly.io", checks[0].get("path", ""), float(str(fly.get("kill_timeout", 5)).removesuffix("s"))
    railway = json.loads((folder / "railway.json").read_text(encoding="utf-8"))["deploy"]
    yield "Railway", railway.get("healthcheckPath", ""), float(railway.get("drainingSeconds", 0))
    run = yaml.safe_load((folder / "cloudrun.yaml").read_text(encoding="utf-8"))
    (container,) = run["spec"]["template"]["spec"]["containers"]
    yield "Cloud Run", container.get("startupProbe", {}).get("httpGet", {}).get("path", ""), CLOUD_RUN_GRACE_S


def main(argv: list[str] | None = None) -> int:
    """Ask before or after a deployment; without a word, before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("preflight", "verify"), default="preflight")
    parser.add_argument("url", nargs="?", default=LOCAL, help=f"where it is deployed (default: {LOCAL})")
    parser.add_argument("--key", default=DEFAULT_API_KEY, help="a key that the service accepts")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="expect a 429 after N chats; sends N + 1")
    args = parser.parse_args(argv)
    url = args.url.rstrip("/")
    if not re.match(r"https?://[^/\s]+", url):
        parser.exit(2, f"{url} is not an address like https://host\n")
    try:
        if args.what == "verify":
            findings = list(verify(url, args.key, limit=args.limit))
        else:
            requirements = CHAPTER / "exercise_1_requirements.txt"
            dockerfile, ignored = CHAPTER / "exercise_2_Dockerfile", ROOT / ".dockerignore"
            findings = list(preflight(dockerfile, requirements, ignored, CHAPTER / "deploy"))
    except (OSError, http.client.HTTPException) as error:
        parser.exit(2, f"{url} does not answer: {error}\nIs it up, and is the address right?\n")
    demo.say((__doc__ or "").splitlines()[0] + "\n")
    for line in notes(url if args.what == "verify" else None, findings).splitlines():
        demo.say(line)
    return 1 if any(finding.ok is False for finding in findings) else 0


if __name__ == "__main__":
    raise SystemExit(main())
