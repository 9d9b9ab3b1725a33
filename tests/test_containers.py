"""The containers for real, where a Docker engine answers: built, run hardened, stopped, edited live."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.chapter import FOLDER
from tests.kit import containers


def test_the_images_and_the_compose_project_keep_their_promises() -> None:
    if containers.engine() is None:
        pytest.skip("no Docker engine answers: the Dockerfiles are read, not built")
    seen: list[str] = []
    made = containers.verify(say=seen.append)
    assert [image.name for image in made] == ["19.1.1: one stage", "19.1.2: two stages"]
    assert len([line for line in seen if "stopped by SIGTERM" in line]) == 2
    assert any(line.startswith("19.5.3 as PID 1:") and "all answered" in line for line in seen)
    assert any(line.startswith("docker compose restart: an edited line answers") for line in seen)
    assert any(re.match(r"docker compose watch: (an edited line answers|not run, Compose \d)", line) for line in seen)


def test_hadolint_has_nothing_to_remark() -> None:
    assert containers.hadolint([FOLDER / "exercise_1_Dockerfile", FOLDER / "exercise_2_Dockerfile"]) == ""


def test_without_an_engine_nothing_is_built_and_nothing_is_called_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert containers.run_containers(write=False) == 2
    assert "no Docker engine answers" in capsys.readouterr().err


def test_the_table_says_all_that_the_exercise_asks_for() -> None:
    image = containers.Image("x", "t", build_s=12.3, rebuild_s=1.25, unpacked=215_000_000, compressed=70_400_000)
    row = containers.table([image]).splitlines()[-1]
    assert row == "| x | 215 MB | 70 MB | 12 s | 1.2 s | 0 ms | 0 ms |"
    base = containers.base_image()
    named = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-trixie", base)
    assert named
    said = containers.conditions("26.1", f"Python {named[1]}")
    assert "Docker Engine 26.1" in said and said.endswith(f"The base image held Python {named[1]}.")
    said = containers.conditions("26.1", "Python 3.13.0")
    assert said.endswith(f"The base image held Python 3.13.0, made on this machine under the name {base}.")
