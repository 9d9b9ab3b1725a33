"""19.3.3: the guide is true. Its table is the configuration's, and its commands are run, a roll-back among them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.chapter import FOLDER, ROOT
from tests.kit import containers, markdown
from tests.kit.readme import between

GUIDE = FOLDER / "exercise_3_19_3_solution.md"
CONFIG = FOLDER / "exercise_2_19_3_solution.py"


BEYOND = ("Scale out on one machine", "Kubernetes")  # what needs a registry or a cluster: parsed, not run


def blocks() -> dict[str, str]:
    """Return the runnable blocks by the heading that they stand under."""
    sections = [section for section in markdown.read(GUIDE) if not section.inner and section.title not in BEYOND]
    return {s.title: "\n".join(code.text for code in s.code if code.run) for s in sections if s.code}


def test_every_block_of_the_guide_is_marked_as_runnable() -> None:
    whole = markdown.read(GUIDE)[1]
    beyond = [code for section in markdown.read(GUIDE) if section.title in BEYOND for code in section.code]
    assert [code.line for code in whole.code if not code.run] == [code.line for code in beyond]
    assert {code.language for code in whole.code} == {"bash"}
    assert list(blocks()) == [
        "Prerequisites", "1. Name things", "2. Write the settings", "3. Build", "4. Start", "Verify", "Roll back",
    ]  # fmt: skip


@pytest.mark.parametrize("title", BEYOND)
def test_what_is_not_run_is_a_shells_language_and_names_what_exists(title: str) -> None:
    (section,) = [section for section in markdown.read(GUIDE) if section.title == title]
    typed = "\n".join(code.text for code in section.code)
    bash = subprocess.run(["bash", "-n"], input=typed, capture_output=True, text=True, check=False)
    assert bash.returncode == 0 and not bash.stderr, bash.stderr
    folder = FOLDER / "production" / "deploy"
    for path in re.findall(r"part_5_production/[\w./-]+", section.text + typed):
        assert (ROOT / path).exists(), path
    composed = yaml.safe_load((folder / "compose.yml").read_text(encoding="utf-8"))
    profiles = {profile for service in composed["services"].values() for profile in service["profiles"]}
    named = set(re.findall(r"--profile (\w+)", section.text + typed))
    deployed = (folder / "kubernetes.yaml").read_text(encoding="utf-8")
    if title == "Kubernetes":
        replaced = "registry.example.com/agent-service:VERSION"
        assert replaced in typed and replaced in deployed
        assert set(re.findall(r"\b(?:deployment|service)/([\w-]+)", typed)) == {"agent-service"}
        assert all(f"port: {port}," in deployed for port in (6379, 5432, 443, 4318))
    else:
        assert named and named <= profiles
        assert set(re.findall(r"\bapp\d\b", typed)) == {"app1", "app2"}


def test_roll_back_starts_the_old_version_as_it_was_started() -> None:
    def start(block: str) -> str:
        return block[block.index("docker run") :]

    assert start(blocks()["4. Start"]) == start(blocks()["Roll back"])


def test_the_table_is_the_configurations() -> None:
    table = between(GUIDE, "variables")
    run = subprocess.run([sys.executable, str(CONFIG), "--table"], capture_output=True, text=True, check=True)
    assert table.strip() == run.stdout[run.stdout.index("| Variable") :].strip()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield an environment for the guide's commands: names, a port and a settings folder of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name = f"check-{os.getpid()}-{port}"
    given = {"NAME": name, "HOST_PORT": str(port), "SETTINGS": str(tmp_path / "settings"), "TRIES": "60"}
    try:
        yield {**os.environ, **given, "OFFLINE": "1", "ENVIRONMENT": "development"}
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, check=False)
        listing = ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}", name]
        tags = subprocess.run(listing, capture_output=True, text=True, check=False).stdout.split()
        for tag in tags:  # by name: the same layers may belong to somebody else's image as well
            subprocess.run(["docker", "rmi", tag], capture_output=True, check=False)


def run(env: dict[str, str], *titles: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Type the blocks of these sections into one shell that stops at the first failure."""
    typed = "\n".join(["set -euo pipefail", *(blocks()[title] for title in titles)])
    return subprocess.run(
        ["bash", "-c", typed], cwd=ROOT, env={**env, **extra}, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_guide_deploys_notices_a_bad_version_and_rolls_back(shell: dict[str, str]) -> None:
    if containers.engine() is None:
        pytest.skip("no Docker engine answers: the guide is read, not followed")
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("this folder is not a git checkout: the guide takes its version from git")
    name, settings = shell["NAME"], Path(shell["SETTINGS"])

    first = run(shell, "Prerequisites", "1. Name things", "2. Write the settings", "3. Build", "4. Start", "Verify")
    assert first.returncode == 0, first.stdout + first.stderr
    assert '{"status":"healthy"}' in first.stdout
    assert "tides has a cost" in first.stdout
    assert (settings / "env").stat().st_mode & 0o077 == 0
    (good,) = (settings / "releases").read_text().split()

    bad = f'FROM {name}:{good}\nENTRYPOINT ["python", "-c", "raise SystemExit(\'bad\')"]\n'
    subprocess.run(["docker", "build", "-q", "-t", f"{name}:bad", "-"], input=bad, text=True, check=True)
    assert run(shell, "4. Start", VERSION="bad").returncode == 0
    assert run(shell, "Verify", VERSION="bad", TRIES="1").returncode != 0, (
        "a version that does not answer is not a good one"
    )
    assert (settings / "releases").read_text().split() == [good]

    back = run(shell, "Roll back", "Verify", VERSION="bad")
    assert back.returncode == 0, back.stdout + back.stderr
    assert f"{name}:{good}" in back.stdout


# ---------------------------------------------------------------- the reader


def test_edge_a_document_is_read_with_all_its_forms(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "intro\n\nTitle\n=====\n\nSub\n---\n1. one\n2) two\n- three\n\n### Deep ###\n| a | b |\n|---|---|\n| c | d |\n"
        "<!-- run -->\n```sh\n$ ls # x\n# no\n| not | a row |\n```\n## Next\n`run me` ~~~\n",
        encoding="utf-8",
    )
    top, title, sub, deep, after = markdown.read(path)
    assert (top.prose, title.title, title.inner) == (["intro"], "Title", ["Sub", "Deep", "Next"])
    assert (sub.numbered, sub.bullets, sub.inner) == (["one", "two"], ["three"], ["Deep"])
    assert deep.rows == [["a", "b"], ["c", "d"]]
    assert deep.items == ["a | b", "c | d"]
    assert deep.commands == ["ls # x", "| not | a row |"]
    assert [(code.language, code.run) for code in sub.code] == [("sh", True)]
    assert after.commands == ["run me"]


def test_abuse_a_fence_that_never_ends_ends_with_the_document(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# A\n```\n# not a heading\n", encoding="utf-8")
    assert [section.title for section in markdown.read(path)] == ["", "A"]


def test_failure_an_empty_document_has_one_empty_section(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("", encoding="utf-8")
    (only,) = markdown.read(path)
    assert (only.title, only.text, only.commands) == ("", "", [])
