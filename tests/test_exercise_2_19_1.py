"""19.1.2: the second Dockerfile against the first, and the reader that the checks stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import CHAPTER, ROOT
from tests.contracts.ex_19_1_2 import minor, not_found
from tests.kit.dockerfile import Dockerfile, Stage, fill, pairs, read
from tests.kit.target import CannotRun


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "Dockerfile"


def reading(path: Path, text: str) -> Dockerfile:
    path.write_text(text, encoding="utf-8")
    return read(path)


# ---------------------------------------------------------------- ours


def test_both_images_run_alike() -> None:
    one, two = (read(CHAPTER / f"exercise_{number}_Dockerfile").final() for number in (1, 2))
    assert one.starts() == two.starts() == ["python", one.starts()[1], "--serve"]
    assert one.user == two.user
    assert one.ports == two.ports
    assert one.healthcheck and two.healthcheck
    assert one.healthcheck.rest == two.healthcheck.rest
    assert {k: v for k, v in two.env.items() if k != "PATH"} == one.env


def test_the_second_stage_installs_nothing_itself() -> None:
    dockerfile = read(CHAPTER / "exercise_2_Dockerfile")
    assert len(dockerfile.stages) == 2
    assert not [command for command in dockerfile.final().commands() if "install" in command]
    assert [copy.source_stage for copy in dockerfile.final().copies] == ["builder", "builder"]


def test_no_file_asks_a_registry_for_its_syntax() -> None:
    for path in (*CHAPTER.glob("*Dockerfile"), *(ROOT / "tests" / "kit").glob("*Dockerfile")):
        assert "syntax=" not in path.read_text(encoding="utf-8").splitlines()[0]


# ---------------------------------------------------------------- the reader


def test_edge_lines_are_continued_over_comments_and_blank_lines(written: Path) -> None:
    text = 'from python:3.12 AS One\nrun a && \\\n  # not this\n\n  b \\\n  c\ncmd ["x", "y z"]\n'
    stage = reading(written, text).final()
    assert stage.alias == "one"
    assert stage.commands() == ["a", "b c"]
    assert [i.place.line for i in stage.instructions] == [2, 7]
    assert stage.starts() == ["x", "y", "z"]


def test_edge_here_documents_and_flags(written: Path) -> None:
    text = "FROM a\nRUN --mount=type=cache,target=/x <<'END'\npip install b\nEND\n"
    text += "COPY --chown=1:1 --from=0 x y /z/\nUSER 5\n"
    stage = reading(written, text).final()
    assert stage.commands() == ["pip install b"]
    assert stage.runs[0].flags == {"mount": "type=cache,target=/x"}
    (copy,) = stage.copies
    assert (copy.sources, copy.to, copy.source_stage) == (("x", "y"), "/z/", "0")
    assert stage.user == "5"


def test_what_a_stage_inherits_and_what_it_does_not(written: Path) -> None:
    text = (
        'ARG TAG=3.13-slim\nFROM python:${TAG} AS base\nARG TAG\nENV A=1 B="2 3"\nENV C old form\nWORKDIR /a\n'
        'WORKDIR b\nUSER me\nEXPOSE 80/tcp 81\nENTRYPOINT ["e"]\nCMD ["c"]\n'
        "FROM base\nENTRYPOINT f\nFROM other\n"
    )
    base, derived, other = reading(written, text).stages
    assert base.image() == derived.image() == "python:3.13-slim"
    assert base.env == derived.env == {"A": "1", "B": "2 3", "C": "old form"}
    assert (derived.workdir, derived.user, derived.ports) == ("/a/b", "me", [80, 81])
    assert base.starts() == ["e", "c"]
    assert derived.starts() == ["f"], "a new ENTRYPOINT forgets the CMD"
    assert (other.env, other.user, other.workdir, other.starts()) == ({}, "", "/", [])
    assert derived.lineage() == [base, derived]


def test_a_stage_can_be_asked_for_by_name(written: Path) -> None:
    dockerfile = reading(written, "FROM a AS dev\nFROM b AS prod\n")
    assert dockerfile.final("dev").base == "a"
    assert dockerfile.final().base == dockerfile.final("nobody").base == "b"


@pytest.mark.parametrize(
    ("text", "filled"),
    [("$A/${A}", "1/1"), ("${B:-x}", "x"), ("${A:-x}", "1"), ("${A:+y}", "y"), ("${B:+y}", ""), ("$B \\$A", "$B \\$A")],
)
def test_variables(text: str, filled: str) -> None:
    assert fill(text, {"A": "1"}) == filled


def test_both_forms_of_env() -> None:
    assert pairs("A=1 B='2 3'") == {"A": "1", "B": "2 3"}
    assert pairs("A 1 2") == {"A": "1 2"}
    assert pairs("") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [("RUN x\n", "Only ARG"), ("FROM a\nINSTALL x\n", "INSTALL is no instruction"), ("# nothing\n", "no FROM")],
)
def test_failure_what_docker_would_refuse_cannot_be_judged(written: Path, text: str, words: str) -> None:
    with pytest.raises(CannotRun, match=words):
        reading(written, text)


def test_abuse_a_file_that_is_no_text_is_refused_in_words(written: Path) -> None:
    written.write_bytes(bytes(range(256)))
    with pytest.raises(CannotRun):
        read(written)


# ---------------------------------------------------------------- what the last stage finds


def stage(written: Path, text: str) -> Stage:
    return reading(written, "FROM python:3.12-slim\n" + text).final()


@pytest.mark.parametrize(
    ("text", "to", "kind", "place", "problem"),
    [
        ('ENV PATH=/v/bin:$PATH\nCMD ["uvicorn"]', "/v", "venv", "/v", ""),
        ('CMD ["/v/bin/uvicorn"]', "/v", "venv", "/v", ""),
        ('CMD ["python"]', "/v", "venv", "/v", "not on PATH"),
        ('ENV PATH=/w/bin:$PATH\nCMD ["uvicorn"]', "/w", "venv", "/v", "its scripts name /v/bin/python"),
        ('ENV PATH=/w/bin:$PATH\nCMD ["python"]', "/w", "venv", "/v", ""),
        ('USER bot\nCMD ["python"]', "/home/bot/.local", "user", "/root/.local", ""),
        ('USER bot\nCMD ["python"]', "/root/.local", "user", "/root/.local", "only root may enter"),
        ('CMD ["python"]', "/root/.local", "user", "/root/.local", ""),
        ('USER bot\nCMD ["python"]', "/opt/.local", "user", "/root/.local", "bot looks in /home/bot/.local"),
        ('ENV PYTHONPATH=/deps\nCMD ["python"]', "/deps", "target", "/deps", ""),
        ('CMD ["python"]', "/deps", "target", "/deps", "not in PYTHONPATH"),
        ('CMD ["python"]', "/usr/local", "prefix", "/install", ""),
        ('CMD ["python"]', "/install", "prefix", "/install", "does not look in /install"),
        ('CMD ["python"]', "/usr/local/lib", "system", "/usr/local", ""),
        ('CMD ["python"]', "/packages", "system", "/usr/local", "does not look in /packages"),
    ],
)
def test_where_python_looks(written: Path, text: str, to: str, kind: str, place: str, problem: str) -> None:
    came = not_found(stage(written, text + "\n"), to, kind, place)
    assert bool(came) == bool(problem)
    assert problem in came


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("python:3.13.1-slim", "3.13"),
        ("ghcr.io/astral-sh/uv:python3.12-bookworm-slim", "3.12"),
        ("python@sha256:3.99", ""),
        ("debian:12", ""),
    ],
)
def test_the_minor_version_of_a_tag(image: str, version: str) -> None:
    assert minor(image) == version
