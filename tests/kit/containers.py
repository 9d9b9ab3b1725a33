"""`containers`: build the images for real, run them hardened, measure them, and edit the compose project live.

Needs a Docker engine that answers. Everything happens on a copy of the files, with a planted `.env`, so that nothing
of a reader's own is touched and a secret in an image would be found.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from shared.config import DEFAULT_API_KEY
from tests.chapter import FOLDER, ROOT
from tests.kit.freezing import FROZEN, pins

CHAPTER = FOLDER.relative_to(ROOT)
IMAGES = {
    "naive: compiler left in": Path("tests/kit/naive_Dockerfile"),
    "19.1.1: one stage": CHAPTER / "exercise_1_Dockerfile",
    "19.1.2: two stages": CHAPTER / "exercise_2_Dockerfile",
}
COMPOSE = CHAPTER / "exercise_3_docker-compose.yml"
HARDENED = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "128"]
STOP_S = 3.0  # from `docker stop` to its return; a busy machine gets three tries
READY_S = 60.0
IN_PROGRESS = 20  # requests, when 19.5.3 is stopped
STARTS = 3  # times that a start is measured
LINE = 'return f"{facts}\\n\\n'  # one line of the agent, which is edited
WATCH = (2, 32)  # the Compose release that can restart what it watches


class Failed(Exception):
    """Something did not hold; the message says what."""


@dataclass
class Image:
    """What one image turned out to be."""

    name: str
    tag: str
    build_s: float = 0.0
    rebuild_s: float = 0.0
    unpacked: int = 0
    compressed: int = 0
    health_ms: float = 0.0
    chat_ms: float = 0.0
    python: str = ""
    layers: list[str] = field(default_factory=list)


def engine() -> str | None:
    """Return the version of the Docker engine that answers, None when none does."""
    if not shutil.which("docker"):
        return None
    with contextlib.suppress(subprocess.TimeoutExpired):
        command = ["docker", "version", "--format", "{{.Server.Version}}"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return run.stdout.strip() if run.returncode == 0 else None
    return None


def docker(*words: str, env: dict[str, str] | None = None) -> str:
    """Run one docker command; an empty value removes a variable; raises Failed with the end of what it said."""
    given = os.environ | (env or {})
    command = ["docker", *words]
    run = subprocess.run(
        command, capture_output=True, text=True, env={k: v for k, v in given.items() if v}, timeout=600, check=False
    )
    if run.returncode:
        raise Failed(f"{' '.join(command)[:200]}\n{(run.stdout + run.stderr)[-2000:]}")
    return run.stdout.strip()


@contextlib.contextmanager
def copy_of_the_files(secret: str) -> Iterator[Path]:
    """Yield a folder with what the images are built from, and a `.env` where people have one."""
    with tempfile.TemporaryDirectory(prefix="containers-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the user in the container reads the mounted source
        skip = shutil.ignore_patterns("__pycache__", ".env", "venv", ".venv*")
        for part in ("shared", CHAPTER, "tests/kit"):
            shutil.copytree(ROOT / part, folder / part, ignore=skip)
        for file in (".dockerignore", ".gitignore", "requirements.txt"):
            shutil.copy(ROOT / file, folder / file)
        for place in (folder, folder / "shared", folder / CHAPTER):
            (place / ".env").write_text(f"OFFLINE=1\nSECRET={secret}\n", encoding="utf-8")
        yield folder


def build(image: Image, dockerfile: Path, context: Path, *, cold: bool) -> float:
    """Build an image and return the seconds that it took; `cold` uses no layer that is there already."""
    start = time.perf_counter()
    docker(
        "build", *(["--no-cache"] if cold else []), "-q", "-f", str(context / dockerfile), "-t", image.tag, str(context)
    )
    return time.perf_counter() - start


@contextlib.contextmanager
def running(tag: str, *options: str, words: tuple[str, ...] = ()) -> Iterator[tuple[str, str, float]]:
    """Run an image, hardened, with the stand-in model; yields its name, its address, and when it was started."""
    name = f"check-{uuid.uuid4().hex[:12]}"
    start = time.perf_counter()
    docker("run", "-d", "--name", name, "-p", "127.0.0.1::8000", "-e", "OFFLINE=1", *HARDENED, *options, tag, *words)
    try:
        yield name, "http://" + docker("port", name, "8000/tcp").splitlines()[0], start
    finally:
        docker("rm", "-f", name)


def until(answers: Callable[[], bool], what: str, within_s: float = READY_S) -> None:
    """Wait until it answers; raises Failed when the time is up."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if answers():
                return
        time.sleep(0.02)
    raise Failed(f"{what} did not come within {within_s:.0f} s")


def healthy(url: str) -> bool:
    """Tell whether /health answers 200."""
    return httpx.get(f"{url}/health", timeout=2).status_code == 200


def chat(url: str, key: str = DEFAULT_API_KEY) -> httpx.Response:
    """Ask the agent in the container."""
    return httpx.post(f"{url}/v1/chat", json={"message": "tides"}, headers={"X-API-Key": key}, timeout=20)


def measure_start(image: Image, *options: str) -> tuple[float, float]:
    """Return the medians of milliseconds from `docker run` to the first /health and to the agent's first answer."""
    times = []
    for _ in range(STARTS):
        with running(image.tag, *options) as (_, url, start):
            until(lambda url=url: healthy(url), "/health")  # type: ignore[misc]
            health = time.perf_counter() - start
            answer = chat(url)
            times.append((health * 1000, (time.perf_counter() - start) * 1000))
            if answer.status_code != 200:
                raise Failed(f"{image.name}: the agent answers {answer.status_code} {answer.text[:200]}")
    return statistics.median(h for h, _ in times), statistics.median(c for _, c in times)


def measure_size(image: Image) -> None:
    """Fill in what an image weighs, unpacked and as it travels (gzip), and the layers that weigh most."""
    image.unpacked = int(docker("image", "inspect", "-f", "{{.Size}}", image.tag))
    pack = zlib.compressobj(6, wbits=31)
    with subprocess.Popen(["docker", "save", image.tag], stdout=subprocess.PIPE) as save:
        assert save.stdout
        for chunk in iter(lambda: save.stdout.read(1 << 20), b""):  # type: ignore[union-attr]
            image.compressed += len(pack.compress(chunk))
    image.compressed += len(pack.flush())
    history = docker("history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", image.tag).splitlines()
    for line in history:
        size, _, made_by = line.partition("\t")
        if re.match(r"[\d.]+MB$", size) and float(size[:-2]) >= 1:
            made_by = re.sub(r"^RUN /bin/sh -c|# buildkit", "", made_by).strip() or "(the base image)"
            image.layers.append(f"{float(size[:-2]):>6.1f} MB  {made_by[:90]}")


def inspect_hardened(image: Image, secret: str, *, timed: bool) -> None:
    """Run an image without rights and hold it to its promises; raises Failed at the first that it does not keep.

    Where nothing is `timed`, a container that stops late is fine as long as it need not be killed.
    """

    def hold(holds: bool, what: str) -> None:
        if not holds:
            raise Failed(f"{image.name}: {what}")

    config = json.loads(docker("image", "inspect", image.tag))[0]["Config"]
    hold(config.get("User") not in (None, "", "0", "root"), "its USER is root")
    hold(secret not in docker("history", "--no-trunc", image.tag) + json.dumps(config), "the secret is in its history")
    name = docker("create", image.tag)
    with subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as export:
        listing = subprocess.run(["tar", "t"], stdin=export.stdout, capture_output=True, text=True, check=True).stdout
    docker("rm", name)
    files = listing.splitlines()
    stray = [f for f in files if re.search(r"(^|/)\.(env|git|dockerignore)(/|$)", f)]
    hold(not stray, f"{stray[:3]} do not belong into it")
    heavy = [f for f in files if re.search(r"bin/(gcc|cc|g\+\+|make)$|root/\.cache/pip|(^|/)app/tests/", f)]
    hold(not heavy, f"{heavy[:3]} are in it")
    with running(image.tag) as (container, url, _):
        state = ["inspect", "-f", "{{.State.Health.Status}}", container]
        until(lambda: healthy(url), "/health")
        until(lambda: docker(*state) == "healthy", "the HEALTHCHECK's own healthy")
        hold(docker("exec", container, "id", "-u") not in ("", "0"), "its process runs as root")
        hold(chat(url, key="wrong").status_code == 401, "a wrong key is let in")
        answer = chat(url)
        hold(answer.status_code == 200 and "tides" in answer.text, f"the agent answers {answer.text[:200]}")
        frozen = docker("exec", container, "python", "-c", PIP_FREEZE)
        hold(pins(frozen) == pins(FROZEN.read_text(encoding="utf-8")), "it holds other packages than the frozen list")
        seconds = stopped_in(container)
    for _ in range(STARTS - 1):
        if timed and seconds > STOP_S:
            with running(image.tag) as (container, url, _):
                until(lambda url=url: healthy(url), "/health")  # type: ignore[misc]
                seconds = stopped_in(container)
    hold(not timed or seconds <= STOP_S, f"SIGTERM: it took {seconds:.1f} s to stop")
    alone = subprocess.run(["docker", "run", "--rm", *HARDENED, image.tag], capture_output=True, text=True, check=False)
    hold(alone.returncode == 2 and "OPENAI_API_KEY" in alone.stderr, "without a key it starts, or does not say why not")
    told = docker("run", "--rm", "-e", "OFFLINE=1", *HARDENED, image.tag, "wind", "power")
    hold("wind power has a cost" in told, "it is no command: docker run IMAGE a topic")
    with running(image.tag, "-e", "PORT=9000", "-p", "127.0.0.1::9000") as (container, _, _):
        url = "http://" + docker("port", container, "9000/tcp").splitlines()[0]
        until(lambda: healthy(url), "/health on another PORT")


PIP_FREEZE = (
    "import importlib.metadata as m; "
    "print('\\n'.join(f'{d.name}=={d.version}' for d in m.distributions() if d.name not in ('pip', 'setuptools')))"
)


def stopped_in(container: str) -> float:
    """Stop a container as a platform does, and return the seconds; raises Failed when it had to be killed."""
    start = time.perf_counter()
    docker("stop", "-t", "10", container)
    seconds = time.perf_counter() - start
    code = docker("inspect", "-f", "{{.State.ExitCode}}", container)
    if code not in ("0", "143"):
        raise Failed(f"SIGTERM: it took {seconds:.1f} s and ended with {code}")
    return seconds


def live_editing(context: Path) -> list[str]:
    """Bring the compose project up, edit a line, restart, and see the edit; returns what was seen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file, project = context / COMPOSE, f"check{uuid.uuid4().hex[:8]}"
    env = {"AGENT_PORT": str(port), "OFFLINE": "", "OPENAI_API_KEY": "", "PWD": str(file.parent)}
    compose = ["compose", "-f", str(file), "-p", project]
    url, seen = f"http://127.0.0.1:{port}", []

    (context / CHAPTER / ".env").rename(context / CHAPTER / ".env.off")
    docker(*compose, "config", "-q", env=env)
    seen.append("docker compose config: valid, also without a .env")
    (context / CHAPTER / ".env.off").rename(context / CHAPTER / ".env")
    try:
        docker(*compose, "up", "-d", "--build", "--wait", env=env)
        container = docker(*compose, "ps", "-q", "agent", env=env)
        image = docker("inspect", "-f", "{{.Image}}", container)
        if docker("exec", container, "id", "-u") == "0":
            raise Failed("compose: the agent runs as root")
        if docker("exec", container, "printenv", "SECRET") == "":
            raise Failed("compose: .env does not reach the container")
        before = chat(url).text
        source = context / CHAPTER / "exercise_1_19_1_solution.py"
        text = source.read_text(encoding="utf-8")
        if LINE not in text or "Edited:" in before:
            raise Failed("compose: the line to edit is not there")
        source.write_text(text.replace(LINE, f"{LINE}Edited: "), encoding="utf-8")
        docker(*compose, "restart", env=env)
        until(lambda: healthy(url), "/health after the restart")
        after = chat(url).text
        if "Edited:" not in after or docker("inspect", "-f", "{{.Image}}", container) != image:
            raise Failed("compose: the restart does not show the edited line")
        seen.append("docker compose restart: an edited line answers, in the same image, as another user than root")
        version = docker("compose", "version", "--short")
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= WATCH:
            with watching(compose, env):
                source.write_text(text.replace(LINE, f"{LINE}Watched: "), encoding="utf-8")
                until(lambda: "Watched:" in chat(url).text, "docker compose watch: the edited line")
            seen.append(f"docker compose watch: an edited line answers by itself (Compose {version})")
        else:
            seen.append(f"docker compose watch: not run, Compose {version} has no action restart (2.32 or newer has)")
        seen.append(f"docker compose stop: {stopped_in(container):.1f} s")
    finally:
        docker(*compose, "down", "-v", "--rmi", "local", "-t", "3", env=env)
    return seen


@contextlib.contextmanager
def watching(compose: list[str], env: dict[str, str]) -> Iterator[None]:
    """Let `docker compose watch` run on what is up, from when it says that it watches; ends it as Ctrl-C does."""
    given = {name: value for name, value in (os.environ | env).items() if value}
    command = ["docker", *compose, "watch", "--no-up"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=given) as watch:
        try:
            assert watch.stdout
            line = watch.stdout.readline()
            while line and "Watch enabled" not in line:
                line = watch.stdout.readline()
            if not line:
                raise Failed("docker compose watch ended before it watched")
            yield
        finally:
            watch.send_signal(signal.SIGINT)
            watch.communicate(timeout=READY_S)


# Exercise 19.5.3 as the first process of a container. The model answers once SIGTERM was heard, and not before.
FIRST_PROCESS = """
import types, httpx, openai, uvicorn
from exercise_3_19_5_solution import GracefulShutdown, create_app
from shared.config import Settings
from shared.offline import OfflineModel

shutdown = GracefulShutdown()
model = OfflineModel()
model.may_answer = lambda: shutdown.shutdown_requested
http = httpx.AsyncClient(transport=httpx.ASGITransport(model))
client = openai.AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=http)
app = create_app(Settings(openai_api_key="k"), client=client, shutdown=shutdown)

@app.get("/calls")
async def calls() -> int:
    return len(model.calls)

uvicorn.run(app, host="0.0.0.0", port=8000)
"""


def drains_as_first_process(image: Image, context: Path) -> str:
    """Run 19.5.3 as PID 1, stop it with requests in progress, and see each of them answered; returns what was seen."""
    mounts = ["-v", f"{context / 'shared'}:/app/shared:ro", "-v", f"{context / CHAPTER}:/app/{CHAPTER.as_posix()}:ro"]
    options = [*mounts, "-e", f"PYTHONPATH=/app:/app/{CHAPTER.as_posix()}", "--entrypoint", "python"]
    with (
        running(image.tag, *options, words=("-c", FIRST_PROCESS)) as (container, url, _),
        ThreadPoolExecutor(IN_PROGRESS) as pool,
    ):
        until(lambda: healthy(url), "19.5.3: /health")
        if not docker("exec", container, "cat", "/proc/1/cmdline").startswith("python"):
            raise Failed("19.5.3: it is not the first process")
        sent = [pool.submit(chat, url) for _ in range(IN_PROGRESS)]
        until(lambda: int(httpx.get(f"{url}/calls").text) == IN_PROGRESS, "19.5.3: all requests at the model")
        seconds = stopped_in(container)
        answers = [request.result() for request in sent]
    wrong = [f"{answer.status_code} {answer.text[:100]}" for answer in answers if answer.status_code != 200]
    if wrong:
        raise Failed(f"19.5.3: {len(wrong)} of {IN_PROGRESS} requests in progress were not answered, as {wrong[0]}")
    return f"19.5.3 as PID 1: SIGTERM with {IN_PROGRESS} requests in progress, all answered, gone in {seconds:.1f} s"


def hadolint(files: list[Path]) -> str:
    """Return what hadolint says of the Dockerfiles; empty when nothing."""
    command = Path(sys.executable).with_name("hadolint")
    if not command.exists():
        return "hadolint is not installed (tests/requirements.txt brings it)"
    words = [str(command), "--no-color", *map(str, files)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def verify(*, cold: bool = False, say: Callable[[str], None] = lambda line: None) -> list[Image]:
    """Build and check all images; with `cold`, measure them, too. Raises Failed."""
    secret = f"planted-{uuid.uuid4().hex}"
    made = [Image(name, f"chapter19-check-{os.getpid()}:{number}") for number, name in enumerate(IMAGES)]
    if not cold:
        made = made[1:]  # the naive one is there to be measured
    try:
        with copy_of_the_files(secret) as context:
            for image in made:
                say(f"{image.name}: building")
                image.build_s = build(image, IMAGES[image.name], context, cold=cold)
                if cold:
                    measure_size(image)
                    image.health_ms, image.chat_ms = measure_start(image)
                    say(bytecode(image))
                    image.python = docker("run", "--rm", "--entrypoint", "python", image.tag, "-V")
                if "naive" not in image.name:
                    inspect_hardened(image, secret, timed=cold)
                    say(f"{image.name}: hardened, healthy, not root, no secret, stopped by SIGTERM")
            if cold:
                edited = context / CHAPTER / "exercise_1_19_1_solution.py"
                edited.write_text(edited.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
                for image in made:
                    image.rebuild_s = build(image, IMAGES[image.name], context, cold=False)
            say(drains_as_first_process(made[-1], context))
            for line in live_editing(context):
                say(line)
    finally:
        for image in made:
            with contextlib.suppress(Failed):
                docker("rmi", "-f", image.tag)
    return made


def bytecode(image: Image) -> str:
    """Say what the bytecode in an image costs and saves."""
    count = "print(sum(p.stat().st_size for r in ('/app', '/opt', '/usr/local') for p in Path(r).rglob('*.pyc')))"
    size = docker("run", "--rm", "--entrypoint", "python", image.tag, "-c", f"from pathlib import Path; {count}")
    without = measure_start(image, "-e", "PYTHONPYCACHEPREFIX=/nowhere")[1]
    return f"{image.name}: {int(size) / 1e6:.0f} MB are bytecode; without it the first answer takes {without:.0f} ms"


def run_containers(*, write: bool) -> int:
    """Do all of it and print the tables; 0 when everything holds, 1 when not, 2 when no engine answers."""
    version = engine()
    if version is None:
        print("no Docker engine answers (docker version); nothing was built", file=sys.stderr)
        return 2
    remarks = hadolint([ROOT / file for file in IMAGES.values() if "naive" not in file.name])
    print(f"hadolint: {remarks or 'nothing to remark'}", flush=True)
    try:
        made = verify(cold=True, say=lambda line: print(line, flush=True))
    except Failed as failed:
        print(f"FAIL  {failed}")
        return 1
    text = table(made) + f"\n{conditions(version, made[-1].python)}\n"
    print(f"\n{text}\nWhere the bytes are:")
    for image in made:
        print(f"  {image.name}")
        print("\n".join(f"    {line}" for line in image.layers))
    if write:
        from tests.kit.readme import put_between

        put_between(FOLDER / "README.md", "containers", text)
    return 0


def table(made: list[Image]) -> str:
    """Return the comparison that the exercise asks for, as Markdown."""
    rows = [
        "| Image | Unpacked | Compressed | Build | Rebuild after an edit | First /health | First answer |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for image in made:
        rows.append(
            f"| {image.name} | {image.unpacked / 1e6:.0f} MB | {image.compressed / 1e6:.0f} MB | {image.build_s:.0f} s "
            f"| {image.rebuild_s:.1f} s | {image.health_ms:.0f} ms | {image.chat_ms:.0f} ms |"
        )
    return "\n".join(rows) + "\n"


def conditions(version: str, python: str) -> str:
    """Say when and on what it was measured; a base image that is not what its name says was made on this machine."""
    base = base_image()
    named = re.search(r"python:([\d.]+)", base)
    local = "" if named and python.endswith(f" {named[1]}") else f", made on this machine under the name {base}"
    today, cores = datetime.date.today().isoformat(), os.cpu_count()
    return (
        f"Measured on {today} with Docker Engine {version}, {cores} cores; starts are the median of {STARTS}.\n"
        f"The base image held {python}{local}."
    )


def base_image() -> str:
    """Return what the Dockerfiles build on."""
    return (FOLDER / "exercise_1_Dockerfile").read_text(encoding="utf-8").split("\nFROM ")[1].split()[0]
