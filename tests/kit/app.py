"""A running app as the checks see it: requests to send, a clock to move, a model to disturb, output to read."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import json
import os
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.kit.clock import Clock
from tests.kit.contract import NotChecked
from tests.kit.live import Forwarder
from tests.kit.standin import StandIn
from tests.kit.target import KEYS, PATIENCE_S, CannotRun, Process, Starter, Target, last_lines

ANSWER_S = 10.0
HELD_S = 1.0  # with no further call of the model
DEFAULT_KEYS = ("dev-key-change-in-production", "dev-key")
MESSAGE = "What is 6 * 7?"
SHOWN = 300


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; `status` 0 means that none came, and `text` says why."""

    method: str
    path: str
    sent_headers: dict[str, str]
    body: Any
    status: int
    headers: httpx.Headers
    text: str
    answered: bool  # carries something that the stand-in model said

    def sent(self) -> str:
        """Return the request in one line."""
        headers = "   ".join(f"{name}: {value}" for name, value in self.sent_headers.items())
        body = "" if self.body is None else json.dumps(self.body)
        return "   ".join(part for part in (f"{self.method} {self.path}", headers, body) if part)[:SHOWN]

    def came(self) -> str:
        """Return the answer in one line."""
        if not self.status:
            return self.text
        text = re.sub(r"\s+", " ", self.text)[:SHOWN]
        return f"{self.status} {text}  with headers {', '.join(self.headers)}"

    def json(self) -> Any:
        """Return the body as JSON, None when it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def curl(self, base: str) -> str:
        """Return a command that sends the same request."""
        parts = [f"curl -i -X {self.method} {base}{self.path}"]
        parts += [f"-H '{name}: {value}'" for name, value in self.sent_headers.items()]
        if self.body is not None:
            parts += ["-H 'Content-Type: application/json'", f"-d '{json.dumps(self.body)}'"]
        return " ".join(parts)


@dataclass
class Manner:
    """How one app wants to be spoken to; found out once per target, so that a fresh process starts unused."""

    path: str = "/v1/chat"
    text_field: str = "message"
    extra: dict[str, Any] = field(default_factory=dict)
    header: str = "X-API-Key"
    keys: tuple[str, ...] = ()
    checks_keys: bool = False
    routes: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()  # what else a chat may carry: fields of the body, and of the query as "?name"
    notes: list[str] = field(default_factory=list)


@functools.cache
def certificates() -> ssl.SSLContext:
    """Return what an https URL is verified by; reading certificates for every app is slow."""
    return ssl.create_default_context()


class App:
    """A target that is up. `key` and `other_key` are two callers' keys; `clock` and `model` are None for a URL."""

    def __init__(
        self,
        target: Target,
        base: str,
        manner: Manner,
        process: Process | None = None,
        model: StandIn | Forwarder | None = None,
    ) -> None:
        self.target, self.base, self.manner = target, base, manner
        self.process, self._model = process, model
        self.used = False
        self.starter: Starter | None = None
        once = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(base_url=base, timeout=ANSWER_S, limits=once, verify=certificates())

    @property
    def kind(self) -> str:
        """Say what kind of target this is, for reasons."""
        return "a URL" if self.target.url else "a file"

    @property
    def capabilities(self) -> frozenset[str]:
        """Say what a check may use here."""
        if not self.process:
            return frozenset(("http",))
        model = {"llm"} if self._model and self._model.controlled else set()
        signals = {"signals"} if hasattr(os, "killpg") else set()  # on Windows os.kill ends a process, whatever it asks
        return frozenset(("http", "clock", "logs", "env")) | model | signals

    @property
    def notes(self) -> list[str]:
        """Return what was found out about how it wants to be spoken to."""
        return self.manner.notes

    @property
    def clock(self) -> Clock:
        """The app's clock."""
        assert self.process, "a check that moves the clock must say needs={'clock'}"
        return self.process.clock

    @property
    def model(self) -> StandIn:
        """The stand-in model that answers the app."""
        assert isinstance(self._model, StandIn), "a check that disturbs the model must say needs={'llm'}"
        return self._model

    @property
    def key(self) -> str:
        """A key that the app accepts."""
        return self.manner.keys[0] if self.manner.keys else KEYS[0]

    @property
    def other_key(self) -> str:
        """A second key; raises NotChecked where none is known."""
        if len(self.manner.keys) < 2:
            raise NotChecked(
                "your app accepted only one key: read several from API_KEY, separated by commas, or give KEY=a,b"
            )
        return self.manner.keys[1]

    def send(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        body: Any = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Exchange:
        """Send one request, with a body as JSON or with bytes as they are; never raises for what the app does."""
        sent = dict(headers or {})
        if key is not None:
            sent = {self.manner.header: key if self.manner.header != "Authorization" else f"Bearer {key}", **sent}
        self.used = True
        try:
            response = self._http.request(method, path, json=body, content=content, headers=sent)
        except httpx.TimeoutException:
            status, text, came = 0, f"no answer within {ANSWER_S:.0f} s", httpx.Headers()
        except httpx.HTTPError as error:
            status, text, came = 0, f"no answer: {error}", httpx.Headers()
        else:
            status, text, came = response.status_code, response.text, response.headers
        answered = bool(self._model and self._model.said(text))
        return Exchange(method, path, sent, body, status, came, text, answered)

    def chat(self, message: str = MESSAGE, *, key: str | None = None, **headers: str) -> Exchange:
        """Send a message to the chat endpoint, as the app's first caller unless told otherwise."""
        body = {self.manner.text_field: message, **self.manner.extra}
        return self.send("POST", self.manner.path, key=key or self.key, body=body, headers=headers)

    def slow_chats(self, count: int, seconds: float) -> list[Exchange]:
        """Send messages at once that the model answers after so many seconds of the app's clock."""
        with ThreadPoolExecutor(count) as pool:
            with self.model.holding():
                under_way = [pool.submit(self.chat) for _ in range(count)]
                held, since = 0, time.monotonic()
                while self.model.held < count and time.monotonic() - since < HELD_S:  # fewer, if the app takes fewer
                    time.sleep(0.005)
                    if self.model.held > held:
                        held, since = self.model.held, time.monotonic()
                self.clock.advance(seconds)
            return [each.result() for each in under_way]

    def later(self, seconds: float) -> None:
        """Move the app's clock, once it has done what it does after an answer: a later request is answered by then."""
        self.send("GET", "/openapi.json")
        self.clock.advance(seconds)

    def chats_at_once(self, count: int, *, key: str | None = None) -> list[Exchange]:
        """Send `count` messages concurrently."""
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(lambda _: self.chat(key=key), range(count)))

    def output(self) -> str:
        """Return what the app has printed and logged."""
        assert self.process
        return self.process.output()

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        assert self.process, "a check that sends signals must say needs={'signals'}"
        self.used = True
        os.kill(self.process.pid, number)

    def exit_status(self, within_s: float) -> int | None:
        """Wait for the process to end; None when it has not."""
        assert self.process
        return self.process.status.code if self.process.status.wait(within_s) else None

    @property
    def ended(self) -> bool:
        """Tell whether the process is gone."""
        return self.process is not None and self.process.status.wait(0)

    def left_open(self) -> int | None:
        """Return how many connections to the model were open when the app had shut down; None if it never did."""
        assert self.process
        note = self.process.folder / "left_open"
        return int(note.read_text(encoding="ascii")) if note.exists() else None

    def close(self) -> None:
        """Stop the process, if it is ours."""
        self._http.close()
        if self.process:
            self.process.stop()


class Bench:
    """Where targets are judged: one stand-in model (or the real one, `live`), one starter; `close` gives it back."""

    def __init__(self, *, patience_s: float = PATIENCE_S, live: Forwarder | None = None) -> None:
        self.model = StandIn()
        self._live = live
        self.starter = Starter()
        self._patience_s = patience_s
        self._manners: dict[Target, Manner] = {}

    def open(self, target: Target, *, env: dict[str, str] | None = None, at: float | None = None) -> App:
        """Bring the target up, unused: how to speak to it is found out once, on a process of its own."""
        if target not in self._manners:
            first = self._start(target, Manner(), env, at)
            try:
                self._manners[target] = find_manner(first)
            finally:
                if not target.url:
                    first.close()
            if target.url:
                return first
        return self._start(target, self._manners[target], env, at)

    def _start(self, target: Target, manner: Manner, env: dict[str, str] | None, at: float | None) -> App:
        if target.url:
            return App(target, target.url, manner)
        model = self._live or self.model
        process = self.starter.start(target, model_url=model.url, env=env, at=at, patience_s=self._patience_s)
        app = App(target, f"http://127.0.0.1:{process.port}", manner, process, model)
        app.starter = self.starter
        return app

    def close(self) -> None:
        """End what was started."""
        self.starter.close()
        self.model.close()
        if self._live:
            self._live.close()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def find_manner(app: App) -> Manner:
    """Find the chat endpoint, its body and the keys; raises CannotRun when there is nothing to talk to."""
    manner = app.manner = dataclasses.replace(app.manner, notes=[])
    _read_openapi(app, manner)
    candidates = _candidate_keys(app.target)
    accepted, refused = [], None
    for header in dict.fromkeys((manner.header, "Authorization")):
        manner.header = header
        for key in candidates:
            exchange = app.chat(key=key)
            if not exchange.status:
                raise CannotRun(f"POST {manner.path} gave {exchange.text}{_blocked(app)}")
            if exchange.status == 404:
                there = (
                    f"found: {', '.join(manner.routes)}"
                    if manner.routes
                    else "and there is no /openapi.json to look in"
                )
                raise CannotRun(
                    f"{app.target} has no chat endpoint: POST {manner.path} is a 404; {there}.\n"
                    'The chapter calls it POST /v1/chat, with {"message": "..."}.'
                )
            if exchange.status >= 500:
                raise CannotRun(
                    f"POST {manner.path} with a plain message is answered {exchange.came()}{_blocked(app)}\n"
                    + (last_lines(_with_traceback(app)) if app.process else "")
                )
            if exchange.status in (401, 403):
                refused = exchange
                continue
            accepted.append(key)
            if len(accepted) == 2:
                break
        if accepted:
            break
    if not accepted:
        came = refused.came() if refused else "nothing"
        raise CannotRun(
            f"no key of ours is accepted by {app.target}: POST {manner.path} answers {came}.\n"
            "Read API_KEY from the environment (the checks set it), or say which keys to use: KEY=key-a,key-b"
        )
    manner.keys = tuple(accepted)
    manner.checks_keys = refused is not None or app.chat(key="wrong-key-of-nobody").status in (401, 403)
    return manner


def _read_openapi(app: App, manner: Manner) -> None:
    with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        schema = app._http.get("/openapi.json").json()
        manner.routes = tuple(f"{m.upper()} {path}" for path, ops in schema["paths"].items() for m in ops)
        posts = {path: ops["post"] for path, ops in schema["paths"].items() if "post" in ops}
        chats = sorted(posts, key=lambda path: (path != "/v1/chat", not path.endswith("/chat"), "chat" not in path))
        if not chats or "chat" not in chats[0]:
            chats = [path for path in posts if "{" not in path]
        if not chats:
            return
        if chats[0] != manner.path:
            manner.path = chats[0]
            manner.notes.append(f"your chat endpoint is POST {manner.path}")
        operation = posts[manner.path]
        manner.takes = tuple(f"?{p['name']}" for p in operation.get("parameters", []) if p["in"] == "query")
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "header" and "key" in parameter["name"].lower():
                manner.header = parameter["name"]
        for scheme in schema.get("components", {}).get("securitySchemes", {}).values():
            if scheme.get("in") == "header":
                manner.header = scheme["name"]
            elif scheme.get("scheme") == "bearer":
                manner.header = "Authorization"
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        name = body.get("$ref", "").rpartition("/")[2]
        body = schema["components"]["schemas"][name] if name else body
        fields, required = body["properties"], body.get("required", [])
        if "message" not in fields:
            texts = [f for f in (*required, *fields) if fields[f].get("type") == "string"]
            manner.text_field = texts[0]
            manner.notes.append(f"the message goes into the field '{manner.text_field}'")
        manner.takes += tuple(name for name in fields if name != manner.text_field)
        blanks = {"string": "check", "integer": 1, "number": 1.0, "boolean": False, "array": [], "object": {}}
        manner.extra = {f: blanks[fields[f]["type"]] for f in required if f != manner.text_field}


def _candidate_keys(target: Target) -> list[str]:
    """Keys worth trying: given ones, those in the environment the target got, the chapter's, those written in it."""
    if target.keys:
        return list(target.keys)
    if target.url:
        return [KEYS[0]]
    assert target.file
    written = []
    with contextlib.suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(target.file.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if re.fullmatch(r"[A-Za-z0-9_.:-]{3,64}", text) and ("key" in text.lower() or "-" in text):
                    written.append(text)
    return list(dict.fromkeys((*KEYS, ",".join(KEYS), *DEFAULT_KEYS, *written)))[:40]


def _with_traceback(app: App) -> str:
    """Return the output, after giving the traceback of a 500 the moment that it takes to be written."""
    for _ in range(20):
        if "Traceback" in app.output():
            break
        time.sleep(0.05)
    return app.output()


def _blocked(app: App) -> str:
    if app.process and (blocked := re.search(r"blocked a connection to (\S+):", app.output())):
        return (
            f"\nIt tried to reach {blocked[1]}, which the checks block: let the OpenAI client take its address from\n"
            "OPENAI_BASE_URL (it does so by itself unless base_url is given)."
        )
    return ""
