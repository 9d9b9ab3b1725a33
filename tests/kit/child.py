"""The target's side: runs inside the learner's process, and says in a ready-file what became of it.

`python child.py JOB` runs one job. `python child.py --zygote` imports the web stack once and forks for every job it
reads from standard input: a start takes milliseconds in place of a second (Linux and macOS; elsewhere one job each).
A job is JSON: file, name, folder, env, clock, ready, output, patience_s.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import importlib.util
import inspect
import io
import ipaddress
import json
import os
import re
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
OUTPUT_LIMIT = 64 * 1024 * 1024
PR_SET_DUMPABLE = 4
HARMLESS = (sys.prefix, sys.base_prefix, "/usr", "/etc", "/lib", "/lib64", "/dev", "/proc", "/sys", "/tmp")
TOUCHES = {
    "open": "open",
    "os.listdir": "list",
    "os.scandir": "list",
    "os.remove": "remove",
    "os.rename": "rename",
    "shutil.rmtree": "remove",
}


class CannotStart(Exception):
    """Why the target cannot be judged, as data for the ready-file."""

    def __init__(self, why: str, **facts: Any) -> None:
        self.report = {"cannot": why, **facts}
        super().__init__(why)


def run(job: dict[str, Any], offset: Any) -> None:
    """Import the learner's file, find the app, serve it until told to stop."""
    ready = Path(job["ready"])

    def say(report: dict[str, Any]) -> None:
        part = ready.with_suffix(".part")
        part.write_text(json.dumps(report), encoding="utf-8")
        part.replace(ready)

    _settle_in(job, offset)
    try:
        app = find_app(load(Path(job["file"])), job["name"], Path(job["file"]).name)
        serve(app, say, ready.with_name("left_open"))
    except CannotStart as error:
        say(error.report)
        raise SystemExit(70) from None


def _settle_in(job: dict[str, Any], offset: Any) -> None:
    from clock import Clock  # type: ignore[import-not-found]  # beside this file, which runs as a script

    if hasattr(os, "setsid"):
        os.setsid()
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_LIMIT, OUTPUT_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:  # Windows
        pass
    os.environ.clear()
    os.environ.update(job["env"])
    if hasattr(__import__("time"), "tzset"):
        __import__("time").tzset()
    os.chdir(job["folder"])
    sys.path[:] = [job["folder"], *job["path"], *(p for p in sys.path if Path(p or ".").resolve() != HERE)]
    sys.argv = [job["file"]]
    offset.clock = Clock(Path(job["clock"]))
    sys.addaudithook(only_loopback)
    if "notes" in job:
        sys.addaudithook(outside(Path(job["notes"]), (*job["own"], str(Path(job["ready"]).parent))))
    faulthandler.dump_traceback_later(job["patience_s"], file=sys.stderr)


def only_loopback(event: str, args: tuple[Any, ...]) -> None:
    """Refuse every connection that leaves this machine, whoever asks for it."""
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto", "socket.bind") and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    if name in (None, "", "localhost", socket.gethostname()):
        return
    try:
        if ipaddress.ip_address(name.split("%")[0]).is_loopback or (
            event == "socket.bind" and name in ("0.0.0.0", "::")
        ):
            return
    except ValueError:
        pass
    print(f"[check kit] blocked a connection to {name}: only this machine can be reached", file=sys.stderr)
    raise ConnectionRefusedError(f"blocked by the check kit: {name} is not on this machine")


def outside(notes: Path, own: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """Note which places outside its own a program asks for. The sandbox keeps them from it; this only gives a name."""
    allowed = tuple(os.path.realpath(path) + os.sep for path in (*own, *HARMLESS))
    around = os.path.realpath(notes.parent) + os.sep
    log = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    told: set[str] = set()

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in TOUCHES or not isinstance(args[0], (str, bytes)) or len(told) >= 20:
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if event == "os.listdir" and path in sys.path:  # how Python imports
            return
        others = re.match(r"/proc/(\d+)/", path)
        fine = (path + os.sep).startswith(allowed) and (not others or int(others[1]) == os.getpid())
        if path.startswith(around) and not (path + os.sep).startswith(allowed[: len(own)]):
            fine = False  # where the checker works, wherever that is
        if not fine and path not in told:
            told.add(path)
            os.write(log, f"tried to {TOUCHES[event]} {path[:300]}\n".encode("utf-8", "backslashreplace"))

    return hook


def load(file: Path) -> ModuleType:
    """Import the file under its own name; every way in which that can stop has its own words."""
    import uvicorn

    def starts_server(*args: Any, **kwargs: Any) -> None:
        raise CannotStart("starts-server", line=_line_in(file, traceback.extract_stack()))

    try:
        compile(file.read_bytes(), str(file), "exec")
    except SyntaxError as error:
        raise CannotStart("syntax", line=error.lineno, message=error.msg) from None
    except ValueError as error:  # a NUL byte
        raise CannotStart("syntax", line=None, message=str(error)) from None
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    real = uvicorn.run, uvicorn.Server.run
    uvicorn.run = starts_server
    uvicorn.Server.run = starts_server  # type: ignore[method-assign]
    try:
        spec.loader.exec_module(module)
    except CannotStart:
        raise
    except SystemExit as error:
        line = _line_in(file, traceback.extract_tb(error.__traceback__))
        raise CannotStart("exits", line=line, message=str(error.code)) from None
    except BaseException as error:
        traceback.print_exc()
        line = _line_in(file, traceback.extract_tb(error.__traceback__))
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        raise CannotStart("import", line=line, message=_sentence(error), missing=missing) from None
    finally:
        uvicorn.run, uvicorn.Server.run = real  # type: ignore[method-assign]
    return module


def find_app(module: ModuleType, name: str | None, file: str) -> Any:
    """Return the ASGI app: `name` if given, else `app`, else what `create_app()` makes."""
    found = getattr(module, name or "app", None)
    if found is None and not name:
        found = getattr(module, "create_app", None)
    config = getattr(module, "Config", None)
    if found is None and not name and hasattr(config, "from_environment") and not hasattr(module, "FastAPI"):
        return around(config)
    if found is None:
        apps = [n for n, value in vars(module).items() if _is_app(value)]
        factories = [n for n, v in vars(module).items() if inspect.isfunction(v) and _makes_app(v, module)]
        raise CannotStart("no-app", wanted=name or "app", found=apps, factories=factories)
    if inspect.isfunction(found) and not name and hasattr(module, "app") and not _makes_app(found, module):
        return found
    if inspect.isfunction(found) and not _takes_asgi(found):
        try:
            found = found()
        except Exception as error:
            traceback.print_exc()
            raise CannotStart("factory", name=name or "create_app", message=_sentence(error)) from None
    if not callable(found):
        raise CannotStart("not-an-app", name=name or "app", message=type(found).__name__)
    return found


def around(config_class: Any) -> Any:
    """Put the smallest chat around a configuration that comes without an app, as in exercise 2 of section 19.3."""
    from fastapi import Body, FastAPI, Header, HTTPException
    from openai import AsyncOpenAI

    def plain(value: Any) -> str:
        return str(value.get_secret_value() if hasattr(value, "get_secret_value") else value)

    try:
        config = config_class.from_environment()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        raise CannotStart("factory", name="Config.from_environment", message=_sentence(error)) from None
    app, client = FastAPI(), AsyncOpenAI(api_key=plain(config.openai_api_key))

    @app.post("/v1/chat")
    async def chat(message: str = Body(embed=True), x_api_key: str = Header("")) -> dict[str, Any]:
        if x_api_key not in plain(getattr(config, "api_key", "")).split(","):
            raise HTTPException(401)
        said = [{"role": "user", "content": message}]
        completion = await client.chat.completions.create(model="gpt-4o-mini", messages=said)  # type: ignore[arg-type]
        return {"response": completion.choices[0].message.content}

    return app


def serve(app: Any, say: Any, left_open: Path) -> None:
    """Serve on a free port; the ready-file names it once the lifespan has started.

    After the lifespan has ended, `left_open` says how many connections to the model the app has not closed.
    """
    import asyncio

    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                faulthandler.cancel_dump_traceback_later()
                say({"port": listener.getsockname()[1], "pid": os.getpid()})

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            await asyncio.sleep(0.05)  # a closed connection takes a turn of the loop to be gone
            left_open.write_text(str(connections_to_the_model()), encoding="ascii")  # noqa: ASYNC240  (the last act)

    # IPPROTO_TCP: asyncio turns Nagle off only on sockets that name it, and Nagle costs 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    # A jump of the clock fires the keep-alive timer: let it be far away.
    config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", lifespan="auto", timeout_keep_alive=10**8)
    server = Server(config)
    try:
        server.run(sockets=[listener])
    except SystemExit:  # how some releases of uvicorn say that the lifespan failed
        if server.started:
            raise
    if not server.started:
        raise CannotStart("lifespan")


def connections_to_the_model() -> int:
    """Count the sockets of this process that are connected to the stand-in."""
    port, count = urlsplit(os.environ.get("OPENAI_BASE_URL", "")).port, 0
    for number in range(3, 1024):
        with contextlib.suppress(OSError):  # no descriptor, or no socket
            seen = socket.socket(fileno=number)
            try:
                count += seen.family == socket.AF_INET and seen.getpeername()[1] == port
            finally:
                seen.detach()
    return count


def _is_app(value: Any) -> bool:
    from starlette.applications import Starlette

    return isinstance(value, Starlette)


def _takes_asgi(function: Any) -> bool:
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    return len(required) == 3


def _makes_app(function: Any, module: ModuleType) -> bool:
    """A function of this module that needs no argument and says, or has in its name, that it makes an app."""
    if function.__module__ != module.__name__:
        return False
    required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind < 2]
    returns = str(function.__annotations__.get("return", ""))
    return not required and ("app" in function.__name__.lower() or "FastAPI" in returns)


def _line_in(file: Path, frames: Any) -> int | None:
    return next((frame.lineno for frame in reversed(list(frames)) if frame.filename == str(file)), None)


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]


# ---------------------------------------------------------------- the zygote


WARM = (
    *("dotenv", "fastapi", "fastapi.middleware.cors", "fastapi.responses", "fastapi.telemetry._runtime", "numpy"),
    *("openai.resources.chat.completions.completions", "openai.resources.chat.completions.messages"),
    *("openai.lib._chat_completion_resources", "openai.resources.responses.responses", "openai.pagination"),
    *("openai.resources.embeddings", "openai.lib.streaming.chat", "httpcore", "httpcore2", "jiter", "truststore"),
    *("langgraph.graph", "langgraph.checkpoint.memory", "langgraph.prebuilt", "langchain_core.tracers.run_collector"),
    *("langchain_core.tracers.stdout", "langchain_core.prompt_values", "anyio._backends._asyncio", "uvicorn"),
    *("uvicorn.lifespan.on", "uvicorn.loops.asyncio", "uvicorn.protocols.http.h11_impl"),
)


def warm_up() -> None:
    """Import what a first chat would import, as far as it is installed, and only then move `datetime`."""
    import clock

    gc.disable()  # what is imported stays: nobody needs to look through it
    for name in WARM:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    _first_chat()
    clock.install_datetime()
    gc.collect()
    gc.freeze()
    gc.enable()


def _first_chat() -> None:
    """Ask nobody for a chat, and read an answer: what openai makes up at the first one takes 20 ms in each process."""
    message = {"role": "assistant", "content": ""}
    with contextlib.suppress(ImportError):
        from openai import OpenAI, OpenAIError
        from openai.types.chat import ChatCompletion

        ChatCompletion.construct(choices=[{"index": 0, "finish_reason": "stop", "message": message}], usage={})
        with (
            contextlib.suppress(OpenAIError, ValueError),  # nobody answers; an odd proxy is the target's to tell
            OpenAI(api_key="-", base_url="nowhere://", max_retries=0) as client,
        ):
            client.chat.completions.create(model="", messages=[message])  # type: ignore[list-item]


def zygote(offset: Any) -> None:
    """Import what nearly every target needs, then fork for each job; reports `{"pid": …, "status": …}` per exit."""
    if os.getpid() == 1:  # in a sandbox: let no target write into this process's pipes by way of /proc
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    warm_up()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: os.write(wake, b"x"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _report({"warm": True})
    pending = b""
    running: set[int] = set()
    groups: set[int] = set()
    notes = None
    while True:
        readable, _, _ = select.select([0, woken], [], [])
        if woken in readable:
            os.read(woken, 1024)
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                if pid in running:  # a sandbox's first process inherits the orphans of others too
                    running.discard(pid)
                    _report({"pid": pid, "status": os.waitstatus_to_exitcode(status)})
            if not running:
                if notes and _strays(groups):
                    with Path(notes).open("a", encoding="utf-8") as log:
                        log.write("left processes behind\n")
                _sweep()
        if 0 in readable:
            data = os.read(0, 65536)
            if not data:  # the checker has ended, perhaps by force: nothing of it lives on
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                job = json.loads(line)
                notes = job.get("notes")
                running.add(pid := _fork(job, offset, (woken, wake)))
                groups.add(pid)


def _fork(job: dict[str, Any], offset: Any, pipe: tuple[int, int]) -> int:
    try:
        pid = os.fork()
    except BlockingIOError:  # as many processes as there may be
        _sweep()
        pid = os.fork()
    if pid:
        _report({"job": job["ready"], "pid": pid})
        return pid
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for end in pipe:
            os.close(end)
        run(job, offset)
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except KeyboardInterrupt:  # what Python makes of Ctrl-C once the server has shut down
        status = 130
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _sweep() -> None:
    """Let nothing outlive the last target: what left its group is still in the namespace that this process leads."""
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def _strays(groups: set[int]) -> bool:
    """Tell whether anything lives that has left the groups of the targets."""
    for stat in Path("/proc").glob("[0-9]*/stat") if os.getpid() == 1 else ():
        with contextlib.suppress(OSError, ValueError):
            state, _, group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(stat.parent.name) != 1 and state != "Z" and int(group) not in groups:
                return True
    return False


def _report(facts: dict[str, Any]) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    import clock

    if sys.argv[1] == "--zygote":
        zygote(clock.install())
    else:
        offset = clock.install()
        warm_up()
        run(json.loads(sys.argv[1]), offset)
