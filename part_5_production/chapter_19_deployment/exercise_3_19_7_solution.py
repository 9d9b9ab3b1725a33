"""Exercise 3 (19.7): put the security headers on every response.

The book asks for nosniff, X-Frame-Options, a Content-Security-Policy and HSTS, from middleware, on all responses.
Notice:

* What `add_middleware` adds sits inside Starlette's own error handler, so an unhandled 500 goes out without it.
  This one goes around the whole app: errors, redirects, HEAD, streams and refused WebSockets all pass through it.
* JSON runs nothing, so its policy allows nothing. A page's policy names the hashes of exactly its own parts. FastAPI's
  `/docs` loads a script from elsewhere; ours is one page without it, so it works under its policy and offline.
* HSTS goes out over HTTPS only (RFC 6797, 7.2). Behind a proxy uvicorn takes the scheme from X-Forwarded-Proto, and
  only of peers named in FORWARDED_ALLOW_IPS (127.0.0.1 unless set), so a client cannot make it up.
* Nothing obsolete: X-XSS-Protection is gone from browsers, and where it worked it could be used to attack.
* `Server: uvicorn` is added below the app: `--serve` turns it off, elsewhere it takes `uvicorn --no-server-header`.

Run it:    python exercise_3_19_7_solution.py             (--serve keeps it up; --grade URL grades any site)
Check it:  make check EX=19.7.3                           (MINE=your_file.py checks yours)

Limit: what uvicorn answers itself (400 to a request that it cannot parse) never reaches an app, and carries none.
"""

import argparse
import base64
import hashlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
import observatory
from shared import demo
from shared.agent import ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Hsts", "SecurityHeaders", "page_policy", "wrap"]

HALF_A_YEAR_S = 15_768_000  # below this a browser forgets too soon
YEAR_S = 31_536_000  # what hstspreload.org asks for
API_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Content-Security-Policy", API_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>API</title><link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
textarea, input { font: 14px monospace; width: 100%; box-sizing: border-box }
pre { background: #f4f4f4; padding: .5rem; overflow: auto }
</style></head><body><h1>API</h1>
<label>X-API-Key <input id="key" autocomplete="off"></label><main></main>
<script>
const put = (parent, tag, textContent = "") =>
  parent.appendChild(Object.assign(document.createElement(tag), {textContent}))
const example = (schema, all) => {
  if (schema.$ref) return example(all[schema.$ref.split("/").pop()], all)
  if (schema.properties) return Object.fromEntries(
    (schema.required ?? []).map(name => [name, example(schema.properties[name], all)]))
  return {string: "hello", integer: 1, number: 1, boolean: false, array: [], object: {}}[schema.type] ?? null
}
const show = (method, path, operation, all) => {
  const section = put(document.querySelector("main"), "section")
  put(section, "h2", `${method.toUpperCase()} ${path}`)
  put(section, "p", operation.description ?? operation.summary)
  const names = (operation.parameters ?? []).filter(({in: place}) => place === "path").map(({name}) => name)
  const inputs = names.map(name => [name, put(put(section, "label", name), "input")])
  const schema = operation.requestBody?.content["application/json"]?.schema
  const body = schema && put(section, "textarea", JSON.stringify(example(schema, all), null, 2))
  const button = put(section, "button", "Send"), result = put(section, "pre")
  button.onclick = async () => {
    const url = inputs.reduce((url, [name, input]) => url.replace(`{${name}}`, encodeURIComponent(input.value)), path)
    const headers = {"X-API-Key": document.querySelector("#key").value, "Content-Type": "application/json"}
    const answer = await fetch(url, {method: method.toUpperCase(), headers, body: body?.value})
    result.textContent = `${answer.status} ${await answer.text()}`
  }
}
fetch("openapi.json").then(answer => answer.json()).then(api => {
  for (const [path, operations] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(operations))
      show(method, path, operation, api.components?.schemas)
})
</script></body></html>
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hsts:
    """The Strict-Transport-Security header: for `max_age_s` a browser comes back over HTTPS only.

    Subdomains are off because they may be other people's; preloading is off because leaving the list takes months.
    """

    max_age_s: int = 2 * YEAR_S
    include_subdomains: bool = False
    preload: bool = False

    def __post_init__(self) -> None:
        if self.max_age_s < HALF_A_YEAR_S:
            raise ValueError(f"max_age_s must be at least {HALF_A_YEAR_S} (half a year)")
        if self.preload and not (self.include_subdomains and self.max_age_s >= YEAR_S):
            raise ValueError(f"preload needs include_subdomains and max_age_s of at least {YEAR_S} (a year)")

    def __str__(self) -> str:
        parts = [f"max-age={self.max_age_s}"]
        parts += ["includeSubDomains"] * self.include_subdomains + ["preload"] * self.preload
        return "; ".join(parts)


class SecurityHeaders:
    """ASGI middleware: every HTTP response carries each of `headers` once, over HTTPS `hsts` too, and no `Server`.

    A header that the app sets itself stays as it is. Put it around the whole app with `wrap`.
    """

    def __init__(self, app: ASGIApp, *, headers: Iterable[tuple[str, str]] = HEADERS, hsts: Hsts | None = None) -> None:
        hsts = hsts or Hsts()
        if hsts.preload:
            log.warning("HSTS preload: browsers will refuse plain HTTP for this domain and all below it, for months")
        self.app = app
        self._plain = [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers]
        self._https = [*self._plain, (b"strict-transport-security", str(hsts).encode("ascii"))]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = self._https if scope.get("scheme") in ("https", "wss") else self._plain

        async def send_with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                theirs = [field for field in message.get("headers", ()) if field[0].lower() != b"server"]
                names = {name.lower() for name, _ in theirs}
                message = {**message, "headers": theirs + [field for field in ours if field[0] not in names]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def wrap(app: FastAPI, *, hsts: Hsts | None = None) -> None:
    """Put SecurityHeaders around all of an app, its own error handler included; raises ValueError for open CORS.

    That is checked at once, and again when the app starts, for what is added in between.
    """
    refuse_open_cors(app)

    def layer(inner: ASGIApp) -> ASGIApp:
        refuse_open_cors(app)
        return SecurityHeaders(inner, hsts=hsts)

    surround(app, layer)


def surround(app: FastAPI, *layers: Callable[[ASGIApp], ASGIApp]) -> None:
    """Put the layers, inside first, around all of an app; `add_middleware` would leave Starlette's 500s outside."""
    inside = app.build_middleware_stack

    def build_middleware_stack() -> ASGIApp:
        stack = inside()
        for layer in layers:
            stack = layer(stack)
        return stack

    app.build_middleware_stack = build_middleware_stack  # type: ignore[method-assign]  # Starlette's hook


def refuse_open_cors(app: FastAPI) -> None:
    """Raise ValueError where any origin may send credentials: every site could then act as whoever visits it."""
    for added in app.user_middleware:
        options: dict[str, Any] = added.kwargs
        anybody = "*" in options.get("allow_origins", ()) or options.get("allow_origin_regex") in (".*", ".+")
        if anybody and options.get("allow_credentials"):
            raise ValueError("CORS: name the origins or turn allow_credentials off; any origin with both is refused")


def page_policy(html: str, **sources: str) -> str:
    """Return a policy under which exactly the inline scripts and styles of this page run (CSP Level 3, hashes).

    `sources` adds directives: connect_src="'self'". Attributes (`onclick=`, `style=`) stay forbidden.
    """
    policy = API_POLICY
    for tag in ("script", "style"):
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
        policy += "".join([f"; {tag}-src", *(f" 'sha256-{value}'" for value in hashes)] if hashes else [])
    return policy + "".join(f"; {name.replace('_', '-')} {value}" for name, value in sources.items())


def create_app(
    settings: Settings | None = None, *, client: "AsyncOpenAI | None" = None, hsts: Hsts | None = None
) -> FastAPI:
    """Make the chat of 19.2 with the headers around it, and a `/docs` that works under its own policy."""
    app = base_app(settings, client, docs_url=None, redoc_url=None)
    wrap(app, hsts=hsts)
    policy = page_policy(PAGE, connect_src="'self'", img_src="data:")  # it asks this API, and has an empty icon

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": policy})

    @app.post("/v1/chat")
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        turn = ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}")
        return ChatResponse(response=(await unless_gone(request, turn)).text, conversation_id=conversation_id)

    return app


def main(argv: list[str] | None = None) -> int:
    """Show the headers on an answer, an error and a page; or grade a site."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--grade", metavar="URL")
    args, rest = parser.parse_known_args(argv)
    if args.grade:
        return observatory.main(args.grade)
    every = (*(name for name, _ in HEADERS), "Strict-Transport-Security", "Server")
    steps = [
        demo.Send("POST", "/v1/chat", {"message": "What is 6 * 7?"}, note="an answer, over HTTP", show=every),
        demo.Send("GET", "https://demo/health", note="over HTTPS: HSTS as well", show=every[-2:-1]),
        demo.Send("GET", "/nowhere", note="an error carries them too", show=every[:2]),
        demo.Send("HEAD", "/docs", note="the page has a policy of its own", show=every[2:3]),
    ]
    return demo.run(__doc__, create_app, steps, rest)


if __name__ == "__main__":
    raise SystemExit(main())
