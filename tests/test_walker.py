"""The walk through an app: which routes, which bodies, which probes, and what is written down of the answers."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Header, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, Field
from security_audit import walker
from security_audit.walker import Walk, body_of, header_of, routes_of, stay_here

pytestmark = pytest.mark.anyio
JOB = {"api_key": "right", "message": "canary"}
Answer = Callable[[httpx.Request], httpx.Response]


class Address(BaseModel):
    city: str
    floor: int = Field(ge=3)


class Order(BaseModel):
    words: str
    kind: str = Field(json_schema_extra={"enum": ["book", "disc"]})
    price: float
    gift: bool
    tags: list[str]
    to: Address
    note: str | None
    remark: str = ""


app = FastAPI()


@app.post("/orders/{number:int}")
def order(number: int, body: Order, x_client_key: str = Header()) -> None: ...


@app.post("/plain")
def plain(body: dict[str, Any]) -> None: ...


@app.get("/hidden", include_in_schema=False)
def hidden() -> None: ...


def client(answer: Answer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://audit")


def test_every_route_is_walked_once_the_hidden_ones_too() -> None:
    routes = routes_of(app, app.openapi())
    assert [route for route in routes if route[1] in ("/hidden", "/plain", "/openapi.json")] == [
        ("GET", "/hidden"), ("GET", "/openapi.json"), ("POST", "/plain")
    ]  # fmt: skip
    assert len(set(routes)) == len(routes)
    assert routes == sorted(routes, key=lambda route: route[1])
    assert "HEAD" not in {method for method, _ in routes}


def test_the_routes_of_one_path_stand_together() -> None:
    schema: dict[str, Any] = {"paths": {"/b": {"post": {}, "get": {}, "put": {}}, "/a": {"post": {}}}}
    assert routes_of(FastAPI(openapi_url=None), schema) == [
        ("POST", "/a"), ("GET", "/b"), ("POST", "/b"), ("PUT", "/b")
    ]  # fmt: skip


def test_a_body_is_filled_as_the_app_describes_it() -> None:
    (path,) = (path for path in app.openapi()["paths"] if path.startswith("/orders"))
    assert body_of(app.openapi(), path, "POST", "text") == {
        "words": "text", "kind": "book", "price": 1, "gift": False, "tags": ["text"],
        "to": {"city": "text", "floor": 3}, "note": "text",
    }  # fmt: skip


@pytest.mark.parametrize(("path", "method"), [("/plain", "POST"), ("/nowhere", "POST"), ("/hidden", "GET")])
def test_edge_a_body_that_nobody_describes_holds_a_message(path: str, method: str) -> None:
    assert body_of(app.openapi(), path, method, "text") == {"message": "text"}


@pytest.mark.parametrize(
    ("part", "body"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}, {"a": "text"}),
        ({"type": "object", "required": ["b", "gone"], "properties": {"b": {"type": "integer"}}}, {"b": 1}),
        ({"allOf": [{"type": "array"}]}, ["text"]),
        ({"anyOf": [{"type": "boolean"}, {"type": "string"}]}, {"message": "text"}),
        ({"type": "array", "items": {"type": "number", "minimum": 5}}, [5]),
        ({"type": "string"}, "text"),
        ({"type": "object"}, {"message": "text"}),
    ],
)
def test_a_part_of_a_body_is_filled_by_its_type(part: dict[str, Any], body: Any) -> None:
    content = {"application/json": {"schema": part}}
    schema = {"paths": {"/x": {"put": {"requestBody": {"content": content}}}}}
    assert body_of(schema, "/x", "PUT", "text") == body


@pytest.mark.parametrize(
    ("dependency", "header"),
    [
        (Security(APIKeyHeader(name="X-Secret-Key")), "X-Secret-Key"),
        (Security(HTTPBearer()), "Authorization"),
        (Header(alias="My-Auth"), "My-Auth"),
        (Header(alias="Trace"), "X-API-Key"),
    ],
)
def test_the_header_of_the_key_is_the_one_that_the_app_describes(dependency: Any, header: str) -> None:
    told = FastAPI()

    @told.get("/")
    def root(given: Any = dependency, page: str = "key") -> None: ...

    assert header_of(told.openapi()) == header
    assert header_of({"paths": {}}) == "X-API-Key"


async def test_every_probe_reaches_a_route_that_takes_a_body() -> None:
    sent: list[tuple[str | None, bytes]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Content-Type"] == "application/json"
        sent.append((request.headers.get("X-API-Key"), request.content))
        return httpx.Response(200)

    async with client(answer) as http:
        walk = Walk(http, "X-API-Key")
        await walk.route("PATCH", "/chat", lambda text: {"message": text}, JOB)
    said = json.dumps({"message": "canary"}).encode()
    assert [exchange["probe"] for exchange in walk.exchanges] == [
        "no key", "wrong key", "chat", "empty body", "wrong types", "not JSON", "model fails", "long"
    ]  # fmt: skip
    assert sent[:4] == [(None, said), ("wrong-key", said), ("right", said), ("right", b"{}")]
    assert {key for key, _ in sent[3:]} == {"right"}
    assert json.loads(sent[4][1]) == {"message": ["no", "text"]}
    with pytest.raises(ValueError):
        json.loads(sent[5][1])
    assert b"please fail" in sent[6][1]
    assert len(json.loads(sent[7][1])["message"]) == walker.LONG == 100_000


@pytest.mark.parametrize(("status", "tried"), [(401, True), (403, True), (402, False), (429, False)])
async def test_where_our_key_is_refused_the_books_own_is_tried(status: int, tried: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status if request.headers.get("Authorization") == "Bearer right" else 200)

    async with client(answer) as http:
        walk = Walk(http, "Authorization")
        await walk.route("POST", "/chat", lambda text: text, JOB)
    chats = [exchange["status"] for exchange in walk.exchanges if exchange["probe"] == "chat"]
    assert chats == ([status, 200] if tried else [status])
    last = walk.exchanges[-1]["status"]
    assert last == (200 if tried else status), "further probes are sent with the key that was accepted"


async def test_a_route_without_a_body_is_asked_without_a_key_alone() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "X-API-Key" not in request.headers
        assert "Content-Type" not in request.headers
        return httpx.Response(404, text="x" * 3_000)

    async with client(answer) as http:
        walk = Walk(http, "X-API-Key")
        await walk.route("DELETE", "/one", lambda text: text, JOB)
    (exchange,) = walk.exchanges
    assert exchange == {"probe": "no key", "method": "DELETE", "path": "/one", "status": 404, "body": "x" * 2_000}


async def test_failure_an_answer_that_never_comes_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(walker, "ANSWER_S", 0)
    async with httpx.AsyncClient(transport=httpx.MockTransport(never), base_url="http://audit") as http:
        walk = Walk(http, "X-API-Key")
        assert await walk.send("long", "GET", "/") == 0
    assert walk.exchanges[0]["body"] == "no answer in 0 s"


@pytest.mark.parametrize(
    ("event", "place", "refused"),
    [
        ("socket.connect", ("192.0.2.1", 80), True),
        ("socket.connect", ("127.0.0.1", 80), False),
        ("socket.connect", ("::1", 80), False),
        ("socket.connect", ("localhost", 80), False),
        ("socket.connect", "/run/a.socket", False),
        ("socket.bind", ("192.0.2.1", 80), False),
    ],
)
def test_abuse_an_app_reaches_this_machine_alone(event: str, place: Any, refused: bool) -> None:
    if refused:
        with pytest.raises(PermissionError, match="on this machine"):
            stay_here(event, (None, place))
    else:
        stay_here(event, (None, place))


SMALL = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
events = []

class Said(BaseModel):
    words: str

@asynccontextmanager
async def lifespan(app):
    events.append("start")
    yield
    events.append("end")

def create_app():
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/items/{number:int}/{name}")
    def item(number: int, name: str): return {"number": number, "name": name}

    @app.post("/breaks")
    def breaks(body: Said): raise RuntimeError("broken")

    return app

app = create_app()
bare = Starlette(routes=[Route("/bare", lambda request: PlainTextResponse("here"))])
"""


@pytest.fixture
def small_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return a job for the walk through SMALL, which leaves this process as it was."""
    (tmp_path / "small_app.py").write_text(SMALL, encoding="utf-8")
    monkeypatch.setattr(sys, "path", ["replaced", *sys.path])
    monkeypatch.setattr(sys, "addaudithook", lambda hook: None)
    monkeypatch.delitem(sys.modules, "small_app", raising=False)
    return JOB | {"folder": str(tmp_path)}


@pytest.mark.parametrize("name", ["small_app", "small_app:app", "small_app:create_app"])
async def test_an_app_is_started_and_every_route_is_sent_its_probes(
    name: str, small_app: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(sys, "addaudithook", hooks.append)
    exchanges = await walker.walk(small_app | {"app": name})
    assert sys.modules["small_app"].events == ["start", "end"]
    assert hooks == [stay_here]
    assert "replaced" not in sys.path
    first, *others, item = [(e["method"], e["path"], e["status"], e["body"]) for e in exchanges]
    assert first == ("GET", "/no-such-path", 404, '{"detail":"Not Found"}')
    assert {other[:2] for other in others} == {("POST", "/breaks")}
    assert [other[2] for other in others] == [500, 500, 500, 422, 422, 422, 500, 500]
    assert others[0][3] == "Internal Server Error"
    assert item == ("GET", "/items/1/1", 200, '{"number":1,"name":"1"}')


async def test_an_app_that_describes_nothing_is_walked_through_too(small_app: dict[str, str]) -> None:
    exchanges = await walker.walk(small_app | {"app": "small_app:bare"})
    assert [(e["path"], e["body"]) for e in exchanges] == [("/no-such-path", "Not Found"), ("/bare", "here")]
