"""19.1.3: the compose file against the image, and the reader that the checks stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import CHAPTER, ROOT
from tests.kit.compose import Compose, Mount, Port, read
from tests.kit.dockerfile import read as read_dockerfile
from tests.kit.files import git_ignores, in_context
from tests.kit.target import CannotRun

OURS = CHAPTER / "exercise_3_docker-compose.yml"


def reading(folder: Path, service: str) -> Compose:
    path = folder / "compose.yml"
    path.write_text("services:\n  a:\n    build: .\n" + "".join(f"    {line}\n" for line in service.splitlines()))
    return read(path)


# ---------------------------------------------------------------- ours


def test_ours_mounts_each_source_where_the_image_has_it() -> None:
    service = read(OURS)
    final = read_dockerfile(CHAPTER / "exercise_1_Dockerfile").final()
    assert service.build() == (ROOT, CHAPTER / "exercise_1_Dockerfile")
    mounted = {mount.target: mount.source for mount in service.mounts()}
    assert mounted == {
        "/app/shared": ROOT / "shared",
        "/app/part_5_production/chapter_19_deployment": CHAPTER,
    }
    assert {copy.to.rstrip("/") for copy in final.copies} - {"/app/requirements.txt"} == set(mounted)


def test_ours_is_for_this_machine_only_and_names_no_obsolete_version() -> None:
    service = read(OURS)
    assert service.ports() == [Port(8000, "127.0.0.1:8000")]
    assert service.env_files() == [".env"]
    assert service.service["env_file"][0]["required"] is False
    assert service.environment() == {"OFFLINE": None, "OPENAI_API_KEY": None, "PORT": "8000"}
    assert "\nversion:" not in OURS.read_text(encoding="utf-8")
    watched = [(OURS.parent / rule["path"]).resolve() for rule in service.service["develop"]["watch"]]
    assert set(watched) == {mount.source for mount in service.mounts()}


# ---------------------------------------------------------------- the reader


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ('ports: ["8000"]', [Port(8000, "")]),
        ("ports: [8000]", [Port(8000, "")]),
        ('ports: ["127.0.0.1:80:8000/tcp"]', [Port(8000, "127.0.0.1:80")]),
        ('ports: ["${P:-80}:${Q}"]', [Port(None, "80")]),
        ('ports: ["3000-3005:8000-8005"]', [Port(8000, "3000-3005")]),
        ("ports: [{target: 8000, published: 80}]", [Port(8000, "")]),
        ("restart: always", []),
    ],
)
def test_edge_ports_in_all_their_forms(tmp_path: Path, ports: str, found: list[Port]) -> None:
    assert reading(tmp_path, ports).ports() == found


def test_edge_volumes_in_all_their_forms(tmp_path: Path) -> None:
    service = reading(
        tmp_path,
        'volumes: [".:/a/", "./s:/s:ro", "${PWD}/t:/t", "named:/n", "/anonymous",'
        " {type: bind, source: ., target: /b}, {type: volume, source: v, target: /v}]",
    )
    assert service.mounts() == [
        Mount(tmp_path, "/a"),
        Mount(tmp_path / "s", "/s"),
        Mount(tmp_path / "t", "/t"),
        Mount(tmp_path, "/b"),
    ]
    assert service.kept() == {"/n", "/anonymous", "/v"}


def test_environment_in_both_forms(tmp_path: Path) -> None:
    assert reading(tmp_path, "environment: [A=1, B]").environment() == {"A": "1", "B": None}
    assert reading(tmp_path, "environment: {A: 1, B: , C: '${C:-x}'}").environment() == {
        "A": "1",
        "B": None,
        "C": "${C:-x}",
    }


def test_a_command_of_its_own_replaces_the_images(tmp_path: Path) -> None:
    assert reading(tmp_path, "command: python 'a b.py'").command(["x"]) == ["python", "a b.py"]
    assert reading(tmp_path, "entrypoint: [a]\ncommand: [b]").command(["x"]) == ["a", "b"]
    assert reading(tmp_path, "restart: always").command(["x"]) == ["x"]


def test_a_place_is_a_line(tmp_path: Path) -> None:
    service = reading(tmp_path, "ports: [80]\nenv_file: .env")
    assert service.place("env_file").sent() == "compose.yml, line 5: env_file: .env"
    assert service.place("volumes").line == 2, "what is not there is missing in the service"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("services:\n  a: [1\n", "not valid YAML, line"),
        ("a: 1\n", "has no services"),
        ("", "has no services"),
        ("services: {}\n", "has no services"),
        ("services: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_failure_and_abuse_what_compose_would_refuse_cannot_be_judged(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "compose.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CannotRun, match=words):
        read(path)


# ---------------------------------------------------------------- the two ignore files


@pytest.mark.parametrize(
    ("patterns", "path", "sent"),
    [
        ("", ".env", True),
        (".env", ".env", False),
        (".env", "sub/.env", True),
        ("**/.env", "sub/deep/.env", False),
        ("**/.env", ".env", False),
        ("*\n!src", "src/a.py", True),
        ("*\n!src\n**/*.pyc", "src/x/a.pyc", False),
        (".env\n!.env", ".env", True),
        ("# .env", ".env", True),
        ("/venv/", "venv/bin/python", False),
        ("*.py[co]", "a.pyc", False),
        ("*.py[co]", "a.py", True),
        ("a?c", "abc", False),
        ("a.c", "abc", True),
        ("./b", "b", False),
        ("s*", "sub/x", False),
        ("*/x", "a/b/x", True),
        ("**", "a/b", False),
    ],
)
def test_a_dockerignore_is_read_as_docker_does(patterns: str, path: str, sent: bool) -> None:
    assert in_context(patterns, path) == sent


def test_a_gitignore_is_read_by_git_itself(tmp_path: Path) -> None:
    file = tmp_path / ".gitignore"
    file.write_text("*.env\nvenv/\n!b.env\n", encoding="utf-8")
    assert git_ignores(file, (".env", "a.env", "b.env", "venv/x", "y")) == {".env", "a.env", "venv/x"}
