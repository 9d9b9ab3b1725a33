"""The rules for files that are not Python: images, compose files, requirements, settings."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from security_audit.findings import rules
from security_audit.hidden import jumbled_key, names_secret, secret_value, words_of
from security_audit.source import Source

NO_SECRET = re.compile(r"(?i)|/[\w./-]+|true|false|\d{1,3}|\{+ ?\w+ ?\}+")  # nothing, a path, a flag, a template


def check_text(source: Source) -> None:
    """Look for secrets in any text: by format, and in NAME=value, "name": "value" and name: value."""
    source.find_secrets(source.text, 1)
    above = ""  # `- name: API_KEY` over `value: ...`, `variable "db_password"` over `default = ...`
    for number, line in enumerate(source.lines, 1):
        if source.has("secret-in-code", number):
            continue
        for name, written in re.findall(
            r"""(?<![\w.-])([A-Za-z_][\w.-]{0,80})["']?\s{0,20}(?::=|[:=])\s*["']?([^\s"',;]+)""", line
        ):
            under, value = above if name in ("value", "default") else name, default_of(written)
            if (names_secret(under) and secret_value(under, value)) or jumbled_key(under, value):
                source.find("secret-in-code", number, secret=value)
        if named := re.search(r"""\b(?:name["']?\s?:|variable)\s["']?([\w.-]{1,80})""", line):
            above = named[1]
        if re.match(r"\s*(export\s+)?(\w+_)?DEBUG\s*=\s*[\"']?(true|1|yes|on)\b", line, re.IGNORECASE):
            source.find("debug-on", number)


def default_of(value: str) -> str:
    """Return what a shell and Compose put where a variable is not set: ${KEY:-this}."""
    match = re.match(r"\$\{\w+:?-([^}]*)", value)
    return match[1] if match else value


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """Read a Dockerfile: line, instruction, arguments; joins continued lines, drops comments and here-documents."""
    escape = "`" if re.match(r"(?i)#\s*escape\s*=\s*`", text) else "\\"
    start, parts, until = 0, [], ""
    for number, line in enumerate(text.splitlines(), 1):
        if until:
            until = "" if line.strip() == until else until
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start or number
        parts.append(line.strip().removesuffix(escape).strip())
        if line.rstrip().endswith(escape):
            continue
        name, _, arguments = " ".join(parts).partition(" ")
        yield start, name.upper(), arguments.strip()
        if here := re.search(r"<<-?[\"']?(\w+)", arguments):
            until = here[1]
        start, parts = 0, []


def check_dockerfile(source: Source, folder: Path | None = None) -> None:
    """The user the last stage ends with, the tags of base images, secrets and .env in layers."""
    users: dict[str, str] = {}  # a stage's name or number -> its user
    values: dict[str, str] = {}
    stage, user, first = "", "", 0
    for line, name, arguments in instructions(source.text):
        words = re.sub(r"\$\{?(\w+)(?::-([^}]*))?\}?", lambda m: values.get(m[1]) or m[2] or m[0], arguments).split()
        given = [word for word in words if not word.startswith("--")]
        if name == "FROM" and given:
            image = given[0]
            user = users.get(
                image.lower(), "nonroot" if re.search("nonroot|unprivileged|rootless|chainguard|cgr.dev", image) else ""
            )
            stage = given[2].lower() if len(given) > 2 else str(len(users))
            first = line
            tag = re.search(r":([^/@]+)(@|$)", image)
            own = image.lower() in users or image == "scratch" or "@sha256:" in image or "$" in image
            if not own and (tag is None or tag[1] == "latest" or tag[1].startswith("latest-")):
                source.find("image-latest", line)
        elif name == "USER" and given:
            user, first = given[0].strip('"'), line
        elif name in ("ENTRYPOINT", "CMD") and (steps_down := re.search(r"\b(?:gosu|su-exec)\b\W+([\w:]+)", arguments)):
            user = steps_down[1]
        elif name in ("ENV", "ARG"):
            pairs = re.findall(r"""(?<![\w.-])([\w.-]{1,80})=("[^"]*"|'[^']*'|\S*)""", arguments)
            if not pairs:
                key, _, rest = arguments.partition(" ")
                pairs = [(key, rest.strip() or ("" if name == "ENV" else "$"))]
            at = line
            for key, quoted in pairs:
                value = quoted.strip("\"'")
                values[key] = value.replace("$", "")
                while key not in source.lines[at - 1]:
                    at += 1  # an instruction may go on over many lines
                if names_secret(re.sub("(?i)_key_id$", "_key", key)) and not NO_SECRET.fullmatch(value):
                    source.find("secret-in-image", at, secret="" if "$" in value or len(value) < 4 else value)
                elif "debug" in words_of(key) and value.lower() in ("1", "true", "yes", "on"):
                    source.find("debug-on", at)
            source.find_secrets(arguments, line, "secret-in-image")
        elif name in ("COPY", "ADD"):
            sources = [word.strip('[]",') for word in given][:-1]
            if re.search(r"--from=\S+:latest(\s|$)", arguments):
                source.find("image-latest", line)
            if any(re.fullmatch(r"(.*/)?\.env(\.(?!example|sample|template).*|\*)?", word) for word in sources):
                source.find("env-in-image", line)
            elif (
                {".", "./", "*"} & set(sources)
                and "--from" not in arguments
                and folder
                and not ignores(folder, ".dockerignore")
            ):
                source.find(
                    "env-in-image", line, detail="the whole folder is copied, and no .dockerignore keeps .env out"
                )
        else:
            if not source.find_secrets(arguments, line, "secret-in-image"):
                for key, value in re.findall(
                    r"(?<!\w)([A-Za-z_]\w{0,80})=[\"']?([^\s\"';&]+)", arguments if name == "RUN" else ""
                ):
                    if names_secret(key) and secret_value(key, value):
                        source.find("secret-in-image", line, secret=value)
        if stage:
            users[stage] = user
    if first and re.split("[:]", user)[0] in ("", "root", "0"):
        source.find("container-root", first)


def check_compose(source: Source) -> None:
    """Secrets as values, images without a version, users and privileges of the services; keeps line numbers."""
    import yaml  # type: ignore[import-untyped]  # it brings no types

    try:
        tree = yaml.compose(source.text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        source.find("could-not-check", 1, detail="not valid YAML")
        check_text(source)
        return
    for service in fields(fields(tree).get("services")).values():
        entries = fields(service)
        for key, node in entries.items():
            line, value = node.start_mark.line + 1, scalar(node)
            for name, written, at in pairs(node):
                text = default_of(written)
                meant = text == written or secret_value(name, text)  # a default for development is no secret
                if names_secret(name) and text and meant and not re.match(r"\$|/", text):
                    source.find("compose-secret", at, secret=text if len(text) > 3 else "")
                elif "debug" in words_of(name) and text.lower() in ("1", "true", "yes", "on"):
                    source.find("debug-on", at)
            if key == "image" and "$" not in value and re.search(r"(^|/)[^:/@]+$|:latest$", value):
                source.find("image-latest", line)
            if (key, value) in (("privileged", "true"), ("network_mode", "host"), ("pid", "host")):
                source.find("compose-privileges", line)
            for item in listed(node):
                if any("docker.sock" in scalar(part) for part in (item, *fields(item).values())):
                    source.find("compose-privileges", item.start_mark.line + 1)
            if key == "user" and value.split(":")[0] in ("root", "0"):
                source.find("container-root", line)
    for number, line_text in enumerate(source.lines, 1):
        source.find_secrets(line_text, number, "compose-secret")


def fields(node: Any) -> dict[str, Any]:
    """Return a YAML mapping's nodes by key, merged ones included."""
    return {scalar(key): value for key, value in node.value} if type(node).__name__ == "MappingNode" else {}


def scalar(node: Any) -> str:
    """Return a YAML scalar's text; "" for anything else (which may contain itself)."""
    return str(node.value) if type(node).__name__ == "ScalarNode" else ""


def listed(node: Any) -> list[Any]:
    """Return a YAML sequence's nodes."""
    return list(node.value) if type(node).__name__ == "SequenceNode" else []


def pairs(node: Any) -> Iterator[tuple[str, str, int]]:
    """Yield name, value and line of `environment` and `args`, which may be written as a mapping or as a list."""
    left, seen = [node], {id(node)}  # an alias may lead to where it stands
    for each in left:
        for key, value in fields(each).items():
            if type(value).__name__ == "ScalarNode":
                yield key, scalar(value), value.start_mark.line + 1
            elif id(value) not in seen:
                seen.add(id(value))
                left.append(value)
        for item in listed(each):
            name, is_pair, text = scalar(item).partition("=")
            if is_pair:
                yield name, text, item.start_mark.line + 1


def check_requirements(source: Source) -> None:
    """Requirements without a version, and versions with a published vulnerability."""
    for number, line in enumerate(source.lines, 1):
        text = re.split(r"\s#|\s;|;|\s--", line.strip())[0].strip().removesuffix("\\").strip()
        match = re.match(r"([A-Za-z0-9][\w.-]*)\s*(\[[^]]*\])?\s*(.*)$", text)
        if not match or text.startswith(("#", "-")) or "://" in text or "/" in match[1]:
            continue
        name, wanted = re.sub(r"[-_.]+", "-", match[1]).lower(), match[3].strip()
        pinned = re.fullmatch(r"={2,3}\s*([\w.!+-]+)", wanted)
        if not pinned:
            if not wanted.startswith("@"):
                source.find("unpinned", number)
            continue
        for package, since, fixed, identifier, *held in rules()["pins"]["vulnerable"] + rules()["pins"]["holding_back"]:
            if name == package and version(since) <= version(pinned[1]) < version(fixed):
                why = f"{identifier} in {held[0] if held else name}; {name} {fixed} has the fix"
                source.find("vulnerable-pin", number, detail=f"{why} (snapshot of {rules()['pins']['date']})")


def version(text: str) -> tuple[int, ...]:
    """Return a version's leading numbers, so that 2.10 is more than 2.9; a pre-release counts as its release."""
    numbers = [int(n) for n in re.findall(r"\d+", re.split(r"[a-z+]", text.lower())[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def ignores(folder: Path, name: str) -> bool:
    """Tell whether .dockerignore (here) or .gitignore excludes .env: the nearest that says so, up to the repository."""
    ignored: bool | None = None
    for place in [folder] if name == ".dockerignore" else [folder, *folder.parents]:
        file = place / name
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []:
            pattern = line.strip().lstrip("!").removeprefix("**/").strip("/")
            if pattern and not pattern.startswith("#") and fnmatch.fnmatch(".env", pattern):
                ignored = not line.strip().startswith("!")
        if ignored is not None or (place / ".git").exists():
            break
    return bool(ignored)
