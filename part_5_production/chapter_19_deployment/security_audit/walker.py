"""In a process of its own: start an app, send every probe to every route, write down what came.

Run as a script by app.py, with the job as its argument; imports nothing of ours, and nothing of ours imports it.
"""

import asyncio
import contextlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

LONG = 100_000  # characters; a chat that accepts them has no limit worth the name
KEPT_CHARACTERS = 2_000  # of each answer
ANSWER_S = 10
BOOKS_KEY = "dev-key-change-in-production"  # the default that the chapter prints


class Walk:
    """A client of one app, and everything that it sent and got."""

    def __init__(self, client: Any, header: str) -> None:
        self.client, self.header = client, header
        self.exchanges: list[dict[str, Any]] = []

    async def send(self, probe: str, method: str, path: str, *, key: str | None = None, body: Any = None) -> int:
        """Send one request, write down what came, return the status; 0 when nothing came in time."""
        given = {} if key is None else {self.header: f"Bearer {key}" if self.header == "Authorization" else key}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        status, text = 0, f"no answer in {ANSWER_S} s"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                headers = given | ({"Content-Type": "application/json"} if data else {})
                response = await self.client.request(method, path, headers=headers, content=data)
                status, text = response.status_code, response.text[:KEPT_CHARACTERS]
        self.exchanges.append({"probe": probe, "method": method, "path": path, "status": status, "body": text})
        return status

    async def route(self, method: str, path: str, body: Callable[[Any], Any], job: Mapping[str, str]) -> None:
        """Send every probe to one route."""
        if method not in ("POST", "PUT", "PATCH"):
            await self.send("no key", method, path)
            return
        said = body(job["message"])
        await self.send("no key", method, path, body=said)
        await self.send("wrong key", method, path, key="wrong-key", body=said)
        key = job["api_key"]
        if await self.send("chat", method, path, key=key, body=said) in (401, 403):
            key = BOOKS_KEY
            await self.send("chat", method, path, key=key, body=said)
        await self.send("empty body", method, path, key=key, body={})
        await self.send("wrong types", method, path, key=key, body=body(["no", "text"]))
        await self.send("not JSON", method, path, key=key, body=b'{"message": ')
        await self.send("model fails", method, path, key=key, body=body("please fail"))
        await self.send("long", method, path, key=key, body=body("a" * LONG))


async def walk(job: Mapping[str, str]) -> list[dict[str, Any]]:
    """Start the app that the job names, walk through its routes, return what came."""
    import httpx

    sys.path[0] = job["folder"]
    module, _, name = job["app"].partition(":")
    app = getattr(importlib.import_module(module), name or "app")
    app = app if hasattr(app, "router") else app()
    sys.addaudithook(stay_here)
    schema = app.openapi() if hasattr(app, "openapi") else {"paths": {}}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://audit") as http,
    ):
        client = Walk(http, header_of(schema))
        await client.send("no such path", "GET", "/no-such-path")
        for method, template in routes_of(app, schema):
            path = re.sub(r"\{\w+\}", "1", template)
            await client.route(method, path, partial(body_of, schema, template, method), job)
        return client.exchanges


def stay_here(event: str, args: tuple[Any, ...]) -> None:
    """Refuse connections to other machines; an audit hook of Python's own."""
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1", "localhost"):
        raise PermissionError("the audit keeps the app on this machine")


def header_of(schema: Mapping[str, Any]) -> str:
    """Return the header that carries the key, as the app's own description says."""
    for scheme in schema.get("components", {}).get("securitySchemes", {}).values():
        if scheme.get("in") == "header":
            return str(scheme["name"])
        if scheme.get("scheme") == "bearer":
            return "Authorization"
    parameters = [p for path in schema["paths"].values() for op in path.values() for p in op.get("parameters", [])]
    names = [p["name"] for p in parameters if p["in"] == "header"]
    return next((name for name in names if re.search("key|auth", name, re.IGNORECASE)), "X-API-Key")


def routes_of(app: Any, schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return method and path of every route, the ones that the app's description leaves out included."""
    described = [(method.upper(), path) for path, methods in schema["paths"].items() for method in methods]
    others = [
        (method, getattr(route, "path_format", route.path))  # as the description has it: without {number:int}
        for route in app.routes
        if hasattr(route, "path")
        for method in getattr(route, "methods", None) or ()
    ]
    return sorted({(m, p) for m, p in (*described, *others) if m != "HEAD"}, key=lambda pair: pair[::-1])


def body_of(schema: Mapping[str, Any], path: str, method: str, text: Any) -> Any:
    """Fill a request body as the app describes it: `text` where text is wanted."""

    def fill(part: Mapping[str, Any]) -> Any:
        if "$ref" in part:
            return fill(schema["components"]["schemas"][part["$ref"].rpartition("/")[2]])
        if choices := part.get("anyOf", part.get("allOf")):
            return fill(choices[0])
        match part.get("type"):
            case "object":
                wanted = part.get("required") or list(part.get("properties", {}))[:1]
                return {name: fill(part["properties"][name]) for name in wanted if name in part.get("properties", {})}
            case "array":
                return [fill(part.get("items", {}))]
            case "integer" | "number":
                return part.get("minimum", 1)
            case "boolean":
                return False
        return part.get("enum", [text])[0]

    content = schema["paths"].get(path, {}).get(method.lower(), {}).get("requestBody", {}).get("content", {})
    wanted = content.get("application/json", {}).get("schema")
    return (wanted and fill(wanted)) or {"message": text}


def main() -> None:
    """Walk through the app that the job names, and write down what came."""
    job = json.loads(sys.argv[1])
    exchanges = asyncio.run(walk(job))
    Path(job["report"]).write_text(json.dumps(exchanges), encoding="utf-8")


if __name__ == "__main__":
    main()
