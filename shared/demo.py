"""The driver of every script: plays a short transcript against the real app, or serves it with `--serve`.

A script ends with `demo.run(__doc__, create_app, [Send(...), ...], argv)`; what it teaches never lives here.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from shared.config import DEFAULT_API_KEY, Settings, SettingsError

KEYS = ("key-of-alice", "key-of-bob")  # the callers of a demo
WIDTH = 160


@dataclass(frozen=True)
class Send:
    """One step: a request, how often it is sent, and the response headers worth seeing.

    `{name}` in the path is filled from the last JSON answer; `key` picks one of the demo's callers, None sends no key.
    """

    method: str
    path: str
    json: Any = None
    key: int | None = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    times: int = 1
    show: tuple[str, ...] = ()
    note: str = ""
    quiet: bool = False  # sent, but not shown: the script makes a table of many


def run(
    doc: str | None, create_app: Callable[..., FastAPI], steps: Iterable[Send], argv: list[str] | None = None
) -> int:
    """Parse the script's arguments and play or serve it; returns the exit status (2: the settings are wrong)."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="keep the app up on HOST and PORT instead of playing")
    args = parser.parse_args(argv)
    try:
        settings = Settings.load(demo=True)
    except SettingsError as error:
        parser.exit(2, f"{error}\n")
    say((doc or "").splitlines()[0])
    say(which_model(settings))
    if args.serve:
        serve(create_app(settings), settings)
    else:
        asyncio.run(play(create_app, settings, steps))
    return 0


def which_model(settings: Settings) -> str:
    """Say who answers, and how to get real answers."""
    if settings.offline:
        return "model: the stand-in, no key needed (for real answers: OPENAI_API_KEY in the environment or in .env)"
    return f"model: {settings.model} (real calls cost money; OFFLINE=1 asks for the stand-in)"


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until Ctrl-C, after printing a line to paste."""
    import uvicorn

    key = DEFAULT_API_KEY if settings.api_keys == (DEFAULT_API_KEY,) else "$API_KEY"
    url = f"http://{settings.host}:{settings.port}"
    say(
        f'try:   curl {url}/v1/chat -H "X-API-Key: {key}" -H "Content-Type: application/json" '
        '-d "{\\"message\\": \\"What is 6 * 7?\\"}"',
    )
    say(f"docs:  {url}/docs\n")
    uvicorn.run(app, host=settings.host, port=settings.port, server_header=False)


async def play(create_app: Callable[..., FastAPI], settings: Settings, steps: Iterable[Send]) -> None:
    """Send the steps to the app in this process, through its real lifespan, and print what went and what came."""
    import httpx

    app = create_app(dataclasses.replace(settings, api_keys=KEYS))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    last: dict[str, Any] = {}
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://demo") as http:
        for step in steps:
            key = {} if step.key is None else {"X-API-Key": KEYS[step.key]}
            path = step.path.format_map(last)
            body = "" if step.json is None else json.dumps(step.json)
            times = f"   ({step.times} times)" if step.times > 1 else ""
            sent = "".join(f"{name}: {value}  " for name, value in (key | step.headers).items())
            if not step.quiet:
                say(f"\n{step.note or path}")
                say(f"  sent  {step.method} {path}  {sent}{body}{times}")
            for _ in range(step.times):
                response = await http.request(step.method, path, json=step.json, headers=key | step.headers)
            if not step.quiet:
                say(f"  came  {response.status_code}  {response.text}")
                for name in step.show:
                    say(f"        {name}: {response.headers.get(name, '-')}")
            is_json = response.content and response.headers.get("content-type", "").startswith("application/json")
            last = response.json() if is_json and isinstance(response.json(), dict) else last


def say(line: str) -> None:
    """Print one line that every terminal can show."""
    line = line if len(line) <= WIDTH + 40 or line.startswith("try") else line[:WIDTH] + " ..."
    print(line.encode("ascii", "backslashreplace").decode())
