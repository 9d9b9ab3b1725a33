"""19.7.3: the middleware alone, the app over HTTP with every kind of answer, the script, the start-up refusals."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from typing import Any

import httpx
import pytest
from exercise_3_19_7_solution import (
    API_POLICY,
    HALF_A_YEAR_S,
    HEADERS,
    PAGE,
    YEAR_S,
    Hsts,
    SecurityHeaders,
    create_app,
    main,
    page_policy,
    wrap,
)
from fastapi import FastAPI, HTTPException, Response, WebSocket
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from observatory import grade
from shared.offline import Fault, OfflineModel
from tests.kit.serving import SETTINGS, client_of, serving

EXPECTED = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
HSTS = {"strict-transport-security": "max-age=63072000"}
OBSOLETE = ("x-xss-protection", "expect-ct", "public-key-pins", "feature-policy", "x-powered-by", "server")


def assert_all_once(headers: httpx.Headers, expected: dict[str, str]) -> None:
    for name, value in expected.items():
        assert headers.get_list(name) == [value], name
    assert not [name for name in OBSOLETE if name in headers]
    assert ("strict-transport-security" in headers) == ("strict-transport-security" in expected)


def all_kinds() -> FastAPI:
    """Return an app with an endpoint for every way in which an answer can come about."""
    app = create_app(SETTINGS, client=client_of(OfflineModel()))

    @app.get("/status/{code}")
    async def status(code: int) -> None:
        raise HTTPException(code, "as told", {"Server": "me", "Retry-After": "1"})

    @app.get("/crash")
    async def crash() -> None:
        raise RuntimeError("as told")

    @app.get("/redirect")
    async def redirect() -> RedirectResponse:
        return RedirectResponse("/health")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"one", b"two"]), media_type="text/event-stream")

    @app.get("/own")
    async def own() -> JSONResponse:
        return JSONResponse({}, headers={"X-FRAME-OPTIONS": "SAMEORIGIN", "Referrer-Policy": "same-origin"})

    @app.get("/empty", status_code=204)
    async def empty() -> Response:
        return Response(status_code=204)

    return app


KINDS = [
    ("GET", "/health", 200),
    ("GET", "/nowhere", 404),
    ("DELETE", "/health", 405),
    ("HEAD", "/health", 405),
    ("HEAD", "/docs", 200),
    ("GET", "/status/413", 413),
    ("GET", "/status/not-a-number", 422),
    ("GET", "/status/429", 429),
    ("GET", "/status/503", 503),
    ("GET", "/crash", 500),
    ("GET", "/redirect", 307),
    ("GET", "/health/", 307),
    ("GET", "/stream", 200),
    ("GET", "/empty", 204),
    ("POST", "/v1/chat", 422),
]


@pytest.mark.anyio
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(("method", "path", "status"), KINDS)
async def test_every_kind_of_answer_carries_every_header_once(method: str, path: str, status: int, scheme: str) -> None:
    async with serving(all_kinds()) as http:
        answer = await http.request(method, f"{scheme}://app{path}", headers={"X-Forwarded-Proto": "https"})
    expected = EXPECTED | (HSTS if scheme == "https" else {})
    if path == "/docs":
        expected["content-security-policy"] = page_policy(PAGE, connect_src="'self'", img_src="data:")
    assert answer.status_code == status
    assert_all_once(answer.headers, expected)


@pytest.mark.anyio
async def test_the_chat_answers_and_carries_them() -> None:
    async with serving(create_app(SETTINGS, client=client_of(OfflineModel()))) as http:
        answer = await http.post("/v1/chat", json={"message": "What is 6 * 7?", "conversation_id": "c"})
        refused = await http.post("/v1/chat", json={"message": "hello"}, headers={"X-API-Key": "wrong"})
        named = await http.post("/v1/chat", json={"message": "hello"})
    assert answer.json() == {"response": "[stand-in] 6 * 7 = 42", "conversation_id": "c"}
    assert (answer.status_code, refused.status_code) == (200, 401)
    assert len(named.json()["conversation_id"]) == 32
    assert_all_once(answer.headers, EXPECTED)
    assert_all_once(refused.headers, EXPECTED)


@pytest.mark.anyio
async def test_failure_of_the_model_carries_them() -> None:
    model = OfflineModel()
    model.next(Fault(status=429, retry_after_s=7), Fault(garbage=True))
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        busy = await http.post("/v1/chat", json={"message": "hello"})
        garbage = await http.post("/v1/chat", json={"message": "hello"})
    assert (busy.status_code, garbage.status_code) == (503, 502)
    assert_all_once(busy.headers, EXPECTED)
    assert_all_once(garbage.headers, EXPECTED)


@pytest.mark.anyio
async def test_a_header_that_a_route_sets_itself_wins_whatever_its_case() -> None:
    async with serving(all_kinds()) as http:
        answer = await http.get("/own")
    assert_all_once(answer.headers, EXPECTED | {"x-frame-options": "SAMEORIGIN", "referrer-policy": "same-origin"})


@pytest.mark.anyio
async def test_the_stream_comes_in_pieces() -> None:
    sent: list[dict[str, Any]] = []
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async def send(message: Any) -> None:
        sent.append(message)

    task = asyncio.create_task(SecurityHeaders(app)({"type": "http"}, None, send))  # type: ignore[arg-type]
    for _ in range(5):
        await asyncio.sleep(0)
    assert [m.get("body") for m in sent] == [None, b"one"]
    go_on.set()
    await task
    assert dict(sent[0]["headers"]) == {name.encode(): value.encode() for name, value in EXPECTED.items()}


@pytest.mark.anyio
async def test_edge_what_the_app_sent_is_not_changed_in_place() -> None:
    constant = {"type": "http.response.start", "status": 200, "headers": ((b"Server", b"x"), (b"a", b"b"))}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(constant)

    async def send(message: Any) -> None:
        seen.append(message["headers"])

    wrapped = SecurityHeaders(app, headers=[("X-One", "1")])
    for scheme in ("http", "https", "ws", "wss"):
        await wrapped({"type": "http", "scheme": scheme}, None, send)  # type: ignore[arg-type]
    hsts = (b"strict-transport-security", b"max-age=63072000")
    one = [(b"a", b"b"), (b"x-one", b"1")]
    assert seen == [one, [*one, hsts], one, [*one, hsts]]
    assert constant["headers"] == ((b"Server", b"x"), (b"a", b"b"))


@pytest.mark.anyio
async def test_a_refused_websocket_is_an_http_answer_too() -> None:
    app = FastAPI()
    wrap(app)

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.send_denial_response(Response(status_code=403))

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "scheme": "wss",
        "path": "/ws",
        "headers": [],
        "query_string": b"",
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    assert sent[0]["type"] == "websocket.http.response.start"
    assert {name.decode(): value.decode() for name, value in sent[0]["headers"]}.items() >= (EXPECTED | HSTS).items()


@pytest.mark.anyio
@pytest.mark.parametrize(("proxy", "hsts"), [("127.0.0.1", True), ("10.0.0.1", False)])
async def test_abuse_the_scheme_is_believed_of_a_trusted_proxy_only(proxy: str, hsts: bool) -> None:
    uvicorns: Any = ProxyHeadersMiddleware  # typed for uvicorn's own scopes
    transport = httpx.ASGITransport(uvicorns(create_app(SETTINGS), trusted_hosts=[proxy]), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answer = await http.get("/health", headers={"X-Forwarded-Proto": "https"})
    assert_all_once(answer.headers, EXPECTED | (HSTS if hsts else {}))


@pytest.mark.parametrize(
    ("hsts", "value"),
    [
        (Hsts(), "max-age=63072000"),
        (Hsts(HALF_A_YEAR_S), "max-age=15768000"),
        (Hsts(include_subdomains=True), "max-age=63072000; includeSubDomains"),
        (Hsts(YEAR_S, True, True), "max-age=31536000; includeSubDomains; preload"),
    ],
)
def test_hsts_in_words(hsts: Hsts, value: str) -> None:
    assert str(hsts) == value


@pytest.mark.parametrize("arguments", [(15_767_999,), (0,), (31_535_999, True, True), (63_072_000, False, True)])
def test_edge_hsts_that_protects_nobody_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="max_age_s"):
        Hsts(*arguments)


def test_hsts_is_a_value() -> None:
    with pytest.raises(AttributeError):
        Hsts().preload = True  # type: ignore[misc]


@pytest.mark.anyio
async def test_preload_warns_and_the_given_hsts_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(create_app(SETTINGS, hsts=Hsts(YEAR_S, include_subdomains=True))) as http:
            answer = await http.get("https://app/health")
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    assert not caplog.records
    SecurityHeaders(FastAPI(), hsts=Hsts(YEAR_S, True, True))
    assert "for months" in caplog.text


OPEN = [
    {"allow_origins": ["*"], "allow_credentials": True},
    {"allow_origins": ["https://a.example", "*"], "allow_credentials": True},
    {"allow_origin_regex": ".*", "allow_credentials": True},
    {"allow_origin_regex": ".+", "allow_credentials": True},
]


@pytest.mark.anyio
@pytest.mark.parametrize("options", OPEN)
async def test_abuse_cors_for_everybody_with_credentials_does_not_start(options: dict[str, Any]) -> None:
    before = FastAPI()
    before.add_middleware(CORSMiddleware, **options)
    with pytest.raises(ValueError, match="name the origins"):
        wrap(before)
    after = create_app(SETTINGS)
    after.add_middleware(CORSMiddleware, **options)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(after), base_url="http://app") as http:
        with pytest.raises(ValueError, match="name the origins"):
            await http.get("/health")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "options",
    [{"allow_origins": ["*"]}, {"allow_origins": ["https://a.example"], "allow_credentials": True}],
)
async def test_other_cors_starts_and_a_preflight_carries_the_headers(options: dict[str, Any]) -> None:
    app = create_app(SETTINGS)
    app.add_middleware(CORSMiddleware, **options)
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
    async with serving(app) as http:
        answer = await http.options("/health", headers=ask)
    assert answer.status_code == 200
    assert "access-control-allow-origin" in answer.headers
    assert_all_once(answer.headers, EXPECTED)


# ---------------------------------------------------------------- pages


def test_a_pages_policy_names_exactly_its_own_parts() -> None:
    html = "<style>a{}</style><p><script>one()</script><script>two(\n)</script>"
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in ("one()", "two(\n)", "a{}")]
    assert page_policy(html, img_src="'self'") == (
        f"{API_POLICY}; script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}'; style-src 'sha256-{hashes[2]}'"
        "; img-src 'self'"
    )
    assert page_policy("<p>nothing runs here") == API_POLICY


@pytest.mark.anyio
async def test_the_docs_need_nothing_from_elsewhere() -> None:
    async with serving(create_app(SETTINGS), key=None) as http:
        page = await http.get("/docs")
        assert (await http.get("/redoc")).status_code == 404
        assert "/docs" not in (await http.get("/openapi.json")).json()["paths"]
    assert page.text == PAGE
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "//" not in PAGE
    assert " onclick=" not in PAGE
    assert "unsafe" not in page.headers["content-security-policy"]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/health", "/docs", "/nowhere"])
async def test_the_observatory_gives_130_and_less_without_any_header_it_grades(path: str) -> None:
    async with serving(create_app(SETTINGS)) as http:
        answer = await http.get(f"https://app{path}")
    fields = answer.headers.multi_items()
    assert grade(fields, html=answer.text).score == 130
    graded = {"x-content-type-options", "content-security-policy", "strict-transport-security"}
    for missing in graded | {"referrer-policy", "cross-origin-resource-policy"}:
        assert grade([f for f in fields if f[0] != missing], html=answer.text).score < 130


def test_the_headers_are_the_expected_ones() -> None:
    assert {name.lower(): value for name, value in HEADERS} == EXPECTED


@pytest.mark.anyio
async def test_an_app_starts_twice() -> None:
    app = create_app(SETTINGS)
    for _ in range(2):
        async with serving(app) as http:
            assert_all_once((await http.get("/health")).headers, EXPECTED)


# ---------------------------------------------------------------- the script


def test_the_script_plays_its_transcript(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.splitlines()[0] == "Exercise 3 (19.7): put the security headers on every response."
    assert "Strict-Transport-Security: -" in out
    assert "Strict-Transport-Security: max-age=63072000" in out
    assert "came  404" in out


def test_failure_nothing_to_grade_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--grade", "http://127.0.0.1:9"]) == 2
    assert "cannot grade" in capsys.readouterr().err
