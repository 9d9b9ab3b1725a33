"""The static half: which files are read, and by which rules."""

import ast
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from security_audit.file_rules import check_compose, check_dockerfile, check_requirements, check_text, ignores
from security_audit.findings import Audit, Finding, words
from security_audit.python_rules import PythonFile
from security_audit.source import Source

MAX_BYTES = 1_000_000  # a larger file is data, not source
SKIPPED = r"\.(?!github|env|gitignore|dockerignore|streamlit).*|venv.*|env|node_modules|site-packages|__pycache__"
TEXT_FILES = words("text-files")


def audit(paths: Iterable[Path]) -> Audit:
    """Read files and folders; raises FileNotFoundError for a path that is not there."""
    findings: list[Finding] = []
    uses: list[tuple[str, int, str]] = []
    count = 0
    paths = [Path(path).resolve() for path in paths]
    base = common_folder(paths)
    for path in dict.fromkeys(itertools.chain.from_iterable(map(files_below, paths))):
        source = read(path, path.relative_to(base).as_posix())
        if source is None:
            continue
        count += 1
        check_file(path, source, alone=path in paths)
        findings += source.findings()
        uses += [(source.file, line, text) for line, text in sorted(source.key_uses.items())]
    return Audit(tuple(findings), count, tuple(uses), {})


def common_folder(paths: list[Path]) -> Path:
    """Return the folder that all file names are relative to."""
    folders = [path if path.is_dir() else path.parent for path in paths]
    return next(f for f in (folders[0], *folders[0].parents) if all(other.is_relative_to(f) for other in folders))


def files_below(path: Path) -> Iterator[Path]:
    """Yield a file, or a folder's files in order; what others wrote (virtual environments, packages) is skipped."""
    if path.is_file():
        yield path
        return
    for child in sorted(path.iterdir()):
        if child.is_symlink() or (child.is_dir() and re.fullmatch(SKIPPED, child.name)):
            continue
        if child.is_dir() or (child.is_file() and kind_of(child)):  # a pipe is neither
            yield from files_below(child)


def kind_of(path: Path) -> str:
    """Say how a file is to be read; "" for one that is not looked into."""
    name = path.name.lower()
    if name.endswith((".py", ".pyw")):
        return "python"
    if "dockerfile" in name.split(".") or "containerfile" in name.split(".") or name.endswith("_dockerfile"):
        return "docker"
    if name.endswith((".yml", ".yaml")) and "compose" in name:
        return "compose"
    if (
        name.endswith(".txt") and ("requirements" in name or path.parent.name == "requirements")
    ) or name == "constraints.txt":
        return "requirements"
    return "text" if name.startswith(".env") or {name, path.suffix.lower()} & TEXT_FILES else ""


def read(path: Path, name: str) -> Source | None:
    """Read a file; one that cannot be read is a finding, one that is no text is none."""
    unread = Source(name, "")
    if path.stat().st_size > MAX_BYTES:
        unread.find("could-not-check", 1, detail=f"larger than {MAX_BYTES:,} bytes")
        return unread
    try:
        data = path.read_bytes()
    except OSError as error:
        unread.find("could-not-check", 1, detail=f"cannot be read: {error.strerror}")
        return unread
    return Source(name, data.decode("utf-8-sig", "replace")) if b"\0" not in data else None


def check_file(path: Path, source: Source, *, alone: bool) -> None:
    """Check one file by its kind; what surrounds it counts when a folder is audited."""
    kind = kind_of(path) or "text"
    if path.name.startswith(".env") and not re.search("example|sample|template|dist", path.name):
        if not ignores(path.parent, ".gitignore"):
            source.find("env-not-ignored", 1)
            check_text(source)
    elif kind == "python":
        check_python(source)
    elif kind == "docker":
        check_dockerfile(source, None if alone else path.parent)
    elif kind == "compose":
        check_compose(source)
    elif kind == "requirements":
        check_requirements(source)
    else:
        check_text(source)
    if path.name == ".env.example" and not alone and not ignores(path.parent, ".gitignore"):
        source.find("env-not-ignored", 1)


def check_python(source: Source) -> None:
    """Parse one Python file and run its rules; one that does not parse is searched as text, and says so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's string escapes
            tree = ast.parse(source.text)
        file = PythonFile(source, tree)
        file.check()
        file.uses_of_keys()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        source.find(
            "could-not-check", getattr(error, "lineno", None) or 1, detail=f"not valid Python: {type(error).__name__}"
        )
        check_text(source)
