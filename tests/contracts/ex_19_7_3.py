"""19.7.3: security headers on all responses.

Readings accepted: any further headers; HSTS always or over HTTPS only (the checks ask as a proxy that serves HTTPS
would), with any max-age above zero; any policy that names directives, in the header itself and not report-only; the
documentation pages switched off. "All responses" is meant: errors and HEAD too. The 500 of an unhandled exception is
shown and does not count: no middleware that an app adds the usual way ever sees it.
"""

from __future__ import annotations

import re

from shared.offline import Fault
from tests.kit.app import App, Exchange
from tests.kit.contract import NotChecked, check, expect

WORTH_THINKING = "ours goes around the whole app, Starlette's own 500 included, and sends HSTS over HTTPS only."

BULLETS = [f"19.7.3 bullet {number}" for number in range(1, 5)]
BEHIND_TLS = {"X-Forwarded-Proto": "https"}
NOSNIFF, FRAME, CSP, HSTS = (
    "x-content-type-options",
    "x-frame-options",
    "content-security-policy",
    "strict-transport-security",
)
PAGES = ("/", "/docs", "/redoc")


def answer(app: App) -> Exchange:
    """Return the answer to a message, asked for as the proxy that serves HTTPS would."""
    return app.chat(**BEHIND_TLS)


def value(exchange: Exchange, name: str) -> str:
    """Return a header's value, empty where it is missing."""
    return str(exchange.headers.get(name, "")).strip()


def missing(exchange: Exchange) -> list[str]:
    """Return which of the headers that every response needs are not there."""
    return [name for name in (NOSNIFF, FRAME, HSTS) if not value(exchange, name)]


def usual(app: App) -> Exchange:
    """Return an ordinary answer; where that one lacks a header, errors are not worth a look."""
    exchange = answer(app)
    if lacking := missing(exchange):
        raise NotChecked(f"an ordinary answer has no {', '.join(lacking)}")
    return exchange


@check(
    "X-Content-Type-Options: nosniff",
    chapter=BULLETS[0],
    hints=(
        "A browser must not guess a type other than the one that you declare.",
        "Set the header in middleware, so that no endpoint can forget it.",
        'response.headers["X-Content-Type-Options"] = "nosniff"',
    ),
)
def nosniff(app: App) -> None:
    exchange = answer(app)
    expect(
        value(exchange, NOSNIFF).lower().split(", ")[0] == "nosniff",
        when="an ordinary message is answered",
        expected="the header X-Content-Type-Options: nosniff",
        seen=exchange,
        came=f"{exchange.status} with X-Content-Type-Options: {value(exchange, NOSNIFF) or '(none)'}",
    )


@check(
    "X-Frame-Options: DENY",
    chapter=BULLETS[1],
    hints=(
        "Nobody should show your service inside their own page.",
        "The chapter asks for DENY; SAMEORIGIN would let your own pages do it.",
        'response.headers["X-Frame-Options"] = "DENY"',
    ),
)
def frame_options(app: App) -> None:
    exchange = answer(app)
    expect(
        value(exchange, FRAME).upper().split(", ")[0] == "DENY",
        when="an ordinary message is answered",
        expected="the header X-Frame-Options: DENY",
        seen=exchange,
        came=f"{exchange.status} with X-Frame-Options: {value(exchange, FRAME) or '(none)'}",
    )


@check(
    "Content-Security-Policy (if serving HTML)",
    chapter=BULLETS[2],
    hints=(
        "FastAPI serves HTML even when you do not: /docs and /redoc.",
        "Give pages a policy that names what they may load, or turn them off with docs_url=None, redoc_url=None.",
        "response.headers[\"Content-Security-Policy\"] = \"default-src 'none'; frame-ancestors 'none'\"",
    ),
)
def policy_on_pages(app: App) -> None:
    for path in PAGES:
        page = app.send("GET", path, headers=BEHIND_TLS)
        if "html" not in value(page, "content-type"):
            continue
        expect(
            re.search(r"\b[a-z]+(-src|-ancestors|-uri|-action)\b", value(page, CSP)) is not None,
            when=f"the page {path} is asked for",
            expected="a Content-Security-Policy header that names what the page may load",
            seen=page,
            came=f"{page.status} with Content-Security-Policy: {value(page, CSP) or '(none)'}",
        )


@check(
    "Strict-Transport-Security (HSTS)",
    chapter=BULLETS[3],
    hints=(
        "A browser that has come once over HTTPS should never come over HTTP again.",
        "The value is max-age= and a number of seconds; half a year is the least that is useful.",
        'response.headers["Strict-Transport-Security"] = "max-age=31536000"',
    ),
)
def hsts(app: App) -> None:
    exchange = answer(app)
    age = re.search(r"(?:^|;)\s*max-age\s*=\s*\"?(\d+)", value(exchange, HSTS), re.IGNORECASE)
    expect(
        age is not None and int(age[1]) > 0,
        when="an ordinary message is answered, behind a proxy that serves HTTPS",
        expected="the header Strict-Transport-Security with a max-age above 0",
        seen=exchange,
        came=f"{exchange.status} with Strict-Transport-Security: {value(exchange, HSTS) or '(none)'}",
    )


@check(
    "X-Content-Type-Options: nosniff: and the others, on errors too",
    chapter=BULLETS[0],
    hints=(
        "404, 405, 401 and 422 are responses too, and so is the answer to HEAD.",
        "Headers that an endpoint or a dependency sets are lost when an error is answered in its place.",
        "Use middleware: it sees every response of the app, whoever made it.",
    ),
)
def on_errors(app: App) -> None:
    usual(app)
    for what, exchange in (
        ("a path that does not exist", app.send("GET", "/no/such/path", headers=BEHIND_TLS)),
        ("a method that is not allowed", app.send("DELETE", app.manner.path, headers=BEHIND_TLS)),
        ("a message without a body", app.send("POST", app.manner.path, key=app.key, headers=BEHIND_TLS)),
        ("a wrong key", app.chat(key="wrong-key-of-nobody", **BEHIND_TLS)),
        ("HEAD in place of GET", app.send("HEAD", "/openapi.json", headers=BEHIND_TLS)),
    ):
        lacking = missing(exchange)
        expect(
            not lacking,
            when=f"{what} is answered",
            expected="the headers that an ordinary answer carries",
            seen=exchange,
            came=f"{exchange.status} without {', '.join(lacking)}",
        )


@check(
    "X-Content-Type-Options: nosniff: and the others, when something breaks",
    chapter=BULLETS[0],
    needs={"llm"},
    beyond=True,  # the chapter asks for middleware, and FastAPI's sits inside of what writes this 500
    hints=(
        "The answer to an unhandled exception is a response too: let the model fail and look at it.",
        "Starlette writes that 500 outside of everything that add_middleware adds, @app.middleware included.",
        "Wrap the whole app (app = SecurityHeaders(app)), or handle Exception yourself and set the headers there.",
    ),
)
def when_it_breaks(app: App) -> None:
    usual(app)
    app.model.next(Fault(garbage=True))
    exchange = answer(app)
    if exchange.status < 500:
        raise NotChecked(f"the model's nonsense was answered {exchange.status}, so nothing broke")
    lacking = missing(exchange)
    expect(
        not lacking,
        when="the model answers nonsense",
        expected="an error that carries the headers",
        seen=exchange,
        came=f"{exchange.status} without {', '.join(lacking)}",
    )


@check(
    "X-Frame-Options: DENY: each header once",
    chapter=BULLETS[1],
    hints=(
        "A header that is sent twice counts as invalid: browsers then ignore X-Frame-Options.",
        "Set a header; do not append it. Add the middleware once.",
        'response.headers["X-Frame-Options"] = "DENY" replaces; headers.append(...) adds a second one.',
    ),
)
def once(app: App) -> None:
    exchange = usual(app)
    for name in (NOSNIFF, FRAME, HSTS):
        values = exchange.headers.get_list(name, split_commas=True)
        expect(
            len(values) == 1,
            when="an ordinary message is answered",
            expected=f"{name} once",
            seen=exchange,
            came=f"{exchange.status} with {name}: {', '.join(values)}",
        )
