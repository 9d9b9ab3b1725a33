"""The grader against the points that MDN publishes, header by header."""

from __future__ import annotations

import functools
import itertools
import ssl
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import observatory
from observatory import grade

FULL = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Strict-Transport-Security": "max-age=63072000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def points(test: str, html: str = "", **changed: Any) -> int:
    fields = FULL | {name.replace("_", "-"): value for name, value in changed.items()}
    return grade([(n, v) for n, v in fields.items() if v is not None], html=html).points[test][0]


CSP = "Content-Security-Policy"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("default-src 'none'", 10),
        ("default-src 'self'", 5),
        ("default-src 'none'; script-src 'sha256-abc='; style-src 'self'", 10),
        ("default-src 'none'; style-src 'unsafe-inline'", 0),
        ("default-src 'self'; style-src https:", 0),
        ("default-src 'self'; img-src http://pictures.example", -10),
        ("script-src 'self' 'unsafe-eval'; object-src 'none'", -10),
        ("default-src 'self'; script-src 'unsafe-inline'", -20),
        ("default-src 'self'; script-src 'unsafe-inline' 'nonce-abc'", 5),
        ("default-src 'self'; script-src data:", -20),
        ("default-src *", -20),
        ("script-src 'self'", -20),
        ("frame-ancestors 'none'", -20),
        ("default-src 'self'; connect-src http://api.example", -20),
        ("default-src 'self'; default-src 'none'", -25),
        ("", -25),
        (None, -25),
        ("default-src 'self'; script-src 'strict-dynamic'", -25),
        ("default-src 'self'; script-src 'strict-dynamic' 'nonce-a' 'self' https: http: * 'unsafe-inline'", 5),
        ("default-src 'self'; script-src 'strict-dynamic' 'nonce-a' 'self' 'unsafe-eval'", -10),
        ("DEFAULT-SRC 'NONE'", 10),
        ("default-src 'none'; report-uri /a; report-uri /b", 10),
        ("default-src *, default-src 'self'", 10),
        ("default-src 'self' a.example, default-src 'self' b.example", 5),
        ("default-src 'self', script-src a.example", 5),
        ("default-src 'self',", -25),
    ],
)
def test_policies(policy: str | None, expected: int) -> None:
    assert points(CSP, Content_Security_Policy=policy) == expected


@pytest.mark.parametrize(
    ("test", "header", "value", "expected"),
    [
        ("Strict-Transport-Security", "Strict-Transport-Security", "max-age=15552000; includeSubDomains", 0),
        ("Strict-Transport-Security", "Strict-Transport-Security", "max-age=15551999", -10),
        ("Strict-Transport-Security", "Strict-Transport-Security", "includeSubDomains", -20),
        ("Strict-Transport-Security", "Strict-Transport-Security", None, -20),
        ("X-Content-Type-Options", "X-Content-Type-Options", None, -5),
        ("X-Content-Type-Options", "X-Content-Type-Options", "nosniff, nosniff", -5),
        ("Referrer-Policy", "Referrer-Policy", "no-referrer, strict-origin", 5),
        ("Referrer-Policy", "Referrer-Policy", "unsafe-url", -5),
        ("Referrer-Policy", "Referrer-Policy", None, 0),
        ("Cross-Origin-Resource-Policy", "Cross-Origin-Resource-Policy", "same-site", 10),
        ("Cross-Origin-Resource-Policy", "Cross-Origin-Resource-Policy", "cross-origin", 0),
        ("Cross-Origin-Resource-Policy", "Cross-Origin-Resource-Policy", "nonsense", -5),
        ("Cross-Origin-Resource-Policy", "Cross-Origin-Resource-Policy", None, 0),
        ("Cookies", "Set-Cookie", None, 0),
        ("Cookies", "Set-Cookie", "a=1; Secure; SameSite=Lax", 5),
        ("Cookies", "Set-Cookie", "a=1; Secure", 0),
        ("Cookies", "Set-Cookie", "a=1", -5),
        ("Cookies", "Set-Cookie", "session=1; HttpOnly", -10),
        ("Cookies", "Set-Cookie", "session=1; Secure", -30),
        ("Cookies", "Set-Cookie", "csrftoken=1; Secure", -20),
        ("Strict-Transport-Security", "Strict-Transport-Security", "max-age=63072000, max-age=63072000", -20),
        ("Strict-Transport-Security", "Strict-Transport-Security", 'Max-Age="63072000"', 0),
        ("Referrer-Policy", "Referrer-Policy", "no-referrer, something-new", 5),
        ("Referrer-Policy", "Referrer-Policy", "something-new", -5),
    ],
)
def test_other_headers(test: str, header: str, value: str | None, expected: int) -> None:
    assert points(test, "", **{header: value}) == expected


def test_framing() -> None:
    without = "default-src 'none'"
    assert points("X-Frame-Options") == 5
    assert points("X-Frame-Options", Content_Security_Policy=without) == 0
    assert points("X-Frame-Options", Content_Security_Policy=without, X_Frame_Options="SAMEORIGIN") == 0
    assert points("X-Frame-Options", Content_Security_Policy=without, X_Frame_Options="DENY, DENY") == -20
    assert points("X-Frame-Options", Content_Security_Policy=without, X_Frame_Options=None) == -20


def test_cors_for_everybody_with_credentials() -> None:
    name = "Cross-Origin Resource Sharing"
    assert points(name, Access_Control_Allow_Origin="null", Access_Control_Allow_Credentials="true") == -50
    assert points(name, Access_Control_Allow_Origin="*") == 0
    assert points(name, Access_Control_Allow_Origin="null") == 0
    assert points(name, Access_Control_Allow_Credentials="true") == 0


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<script>own()</script><script src='/own.js'></script>", 0),
        ("<script src='https://cdn.example/a.js' integrity='sha384-x'></script>", 5),
        ("<script src=https://cdn.example/a.js></script>", -5),
        ('<script src="//cdn.example/a.js" integrity="sha384-x"></script>', -20),
        ("<script src='https://cdn.example/a.js' integrity='x'></script><script src='http://x/b.js'></script>", -50),
        ("<SCRIPT SRC='HTTPS://CDN.EXAMPLE/a.js'></SCRIPT>", -5),
        ("<!-- <script src='http://cdn.example/a.js'></script> -->", 0),
        ("<script src='/own.js' integrity='sha384-x'></script>", 5),
        ("<script src='http://static.my.example/a.js'></script>", 0),
        ("<script src='https://a.test/a.js'></script><script src='/b.js' integrity='sha384-x'></script>", -5),
        ("<script src='https://a.test/a.js'", 0),
        ("<script src='https://a.test/a.js'></script><![x[", -5),
    ],
)
def test_scripts_from_elsewhere(html: str, expected: int) -> None:
    result = grade(FULL.items(), html=html, host="www.my.example").points["Subresource Integrity"]
    assert result[0] == expected


META = "<meta http-equiv='Content-Security-Policy' content=\"{}\">"


def test_policies_in_the_page_count_with_those_in_the_header() -> None:
    strict = META.format("default-src 'none'; frame-ancestors 'none'")
    assert points(CSP, strict, Content_Security_Policy=None) == 10
    assert points("X-Frame-Options", strict, Content_Security_Policy=None, X_Frame_Options=None) == -20
    assert points(CSP, strict, Content_Security_Policy="default-src *") == 10
    assert points(CSP, META.format("default-src 'self'; default-src a"), Content_Security_Policy="default-src a") == -25
    assert points("Referrer-Policy", "<meta http-equiv=Referrer-Policy content=unsafe-url>") == -5
    corp = "<meta http-equiv=cross-origin-resource-policy content=same-site>"
    assert points("Cross-Origin-Resource-Policy", corp, Cross_Origin_Resource_Policy=None) == 10


def test_headers_that_come_twice() -> None:
    def twice(test: str, name: str, one: str, two: str) -> int:
        return grade([*FULL.items(), (name, one), (name.lower(), two)]).points[test][0]

    assert grade([*FULL.items(), ("x-frame-options", "DENY")]).points["X-Frame-Options"][0] == 5
    assert grade([("X-Frame-Options", "DENY")] * 2).points["X-Frame-Options"][0] == -20
    assert grade([("Strict-Transport-Security", "max-age=63072000")] * 2).points["Strict-Transport-Security"][0] == -20
    assert grade([("X-Content-Type-Options", "nosniff")] * 2).points["X-Content-Type-Options"][0] == -5
    assert grade([(CSP, "default-src *"), (CSP.upper(), "default-src 'self'")]).points[CSP][0] == 10
    assert twice("Cookies", "Set-Cookie", "a=1; Secure; SameSite=Lax", "b=2; Secure; SameSite=Lax") == 5


def test_scores_and_letters() -> None:
    assert (grade(FULL.items()).score, grade(FULL.items()).letter) == (130, "A+")
    bare = grade([])
    assert (bare.score, bare.letter) == (30, "D")
    json_api = {name: value for name, value in FULL.items() if name != CSP}
    assert (grade(json_api.items()).score, grade(json_api.items()).letter) == (75, "B")
    assert grade(FULL.items(), redirection=(-20, "")).score == 80, "no bonus below 90"
    assert grade([("Set-Cookie", "session=1")], redirection=(-20, "")).letter == "F"


def test_what_is_missing_is_told_from_what_cannot_be_read() -> None:
    assert grade([]).points[CSP] == (-25, "none")
    assert grade([(CSP, "default-src 'self'; default-src 'self'")]).points[CSP] == (-25, "unreadable")
    with pytest.raises(AttributeError):
        grade([]).score = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        observatory.Answer([], [], "").html = ""  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        (["a=1"], (-20, "a cookie without Secure")),
        (["session=1; HttpOnly"], (-40, "a session cookie without Secure")),
        (["login=1; Secure; SameSite=Lax"], (-30, "a session cookie without HttpOnly")),
        (["a=1; Secure; SameSite=None"], (5, "Secure, HttpOnly, SameSite")),
        (["a=1; SameSite=None"], (-20, "a SameSite that browsers refuse")),
        (["a=1; Secure; SameSite=Maybe"], (-20, "a SameSite that browsers refuse")),
        (["a=1; Secure; SameSite"], (-20, "a SameSite that browsers refuse")),
        (["a=1; Secure; SameSite=Lax", "b=1; Secure"], (0, "no SameSite")),
    ],
)
def test_cookies_without_strict_transport_security(cookies: list[str], expected: tuple[int, str]) -> None:
    assert grade([("Set-Cookie", cookie) for cookie in cookies]).points["Cookies"] == expected


@pytest.mark.parametrize(
    ("penalty", "score", "letter"),
    [
        (-10, 120, "A+"),
        (-11, 89, "A-"),
        (-70, 30, "D"),
        (-75, 25, "D-"),
        (-76, 24, "F"),
        (-100, 0, "F"),
        (-300, 0, "F"),
    ],
)
def test_edge_a_score_from_the_best_to_none(penalty: int, score: int, letter: str) -> None:
    graded = grade(FULL.items(), redirection=(penalty, ""))
    assert (graded.score, graded.letter) == (score, letter)


Answers = dict[str, tuple[int, dict[str, str]]]
PAGE: tuple[int, dict[str, str]] = (200, FULL | {"Content-Type": "text/html"})
MOVED: dict[str, tuple[int, Answers]] = {
    "to HTTPS": (0, {"http://a.example/": (301, {"Location": "https://a.example/"})}),
    "to another host at once": (-5, {"http://a.example/": (301, {"Location": "https://b.example/"})}),
    "the first step is not to HTTPS": (
        -10,
        {
            "http://a.example/": (301, {"Location": "http://b.example/"}),
            "http://b.example/": (301, {"Location": "https://b.example/"}),
        },
    ),
    "plain HTTP stays plain": (-20, {"http://a.example/": (200, {})}),
    "nothing answers over HTTP": (0, {}),
}


@pytest.mark.parametrize("why", MOVED)
@pytest.mark.parametrize("url", ["a.example/", "http://a.example/", "https://a.example/"])
def test_where_plain_http_leads(url: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, answers = MOVED[why]
    asked = answering({"https://a.example/": PAGE, "https://b.example/": PAGE} | answers, monkeypatch)
    result, note = observatory.fetch(url)
    assert (result.points["Redirection"], note) == ((expected, why), "")
    assert result.points["Subresource Integrity"] == (-50, "http://x/b.js")
    assert result.points["Strict-Transport-Security"][0] == 0
    assert {request.headers["origin"] for request in asked} == {"null"}
    assert not any("x-forwarded-proto" in request.headers for request in asked)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:8000"])
def test_on_this_machine_it_asks_as_the_proxy_would(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering({f"http://{host}/": (200, FULL)}, monkeypatch)
    result, note = observatory.fetch(f"http://{host}/")
    assert (result.score, result.points["Redirection"]) == (130, (0, "not asked"))
    assert "as a proxy on this machine" in note
    assert [request.headers["x-forwarded-proto"] for request in asked] == ["https"]


def answering(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """Let these addresses answer, with a script from elsewhere in each body, and nothing listen on others."""
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if (found := answers.get(str(request.url))) is None:
            raise httpx.ConnectError("nothing listens")
        return httpx.Response(found[0], headers=found[1], text="<script src=http://x/b.js></script>")

    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=httpx.MockTransport(answer)))
    return asked


def test_a_url_without_a_scheme_and_one_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert observatory.main("127.0.0.1:9") == 2
    assert observatory.main("http://[") == 2
    assert capsys.readouterr().err.count("cannot grade") == 2


def test_a_site_without_https_is_graded_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    answering({"http://a.example/": PAGE}, monkeypatch)
    result, note = observatory.fetch("a.example/")
    assert result.points["Strict-Transport-Security"] == (-20, "none")
    assert result.points["Redirection"] == (-20, "plain HTTP stays plain")
    assert "over plain HTTP" in note


@pytest.mark.parametrize(("redirections", "points_for_it"), [(10, -10), (11, -20)])
def test_abuse_redirections_end(redirections: int, points_for_it: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [*(f"http://a.example/{n}" for n in range(redirections)), "https://a.example/end"]
    answers: Answers = {one: (302, {"Location": two}) for one, two in itertools.pairwise(chain)}
    answering({"https://a.example/0": PAGE, chain[-1]: PAGE} | answers, monkeypatch)
    assert observatory.fetch("http://a.example/0")[0].points["Redirection"][0] == points_for_it


def test_abuse_a_loop_over_https_cannot_be_graded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answering({"https://a.example/": (302, {"Location": "https://a.example/"})}, monkeypatch)
    assert observatory.main("https://a.example/") == 2
    assert "cannot grade https://a.example/" in capsys.readouterr().err


def test_a_certificate_that_does_not_hold_costs_the_hsts(monkeypatch: pytest.MonkeyPatch) -> None:
    real = httpx.Client

    def client(*, verify: bool, **options: Any) -> httpx.Client:
        def answer(request: httpx.Request) -> httpx.Response:
            if verify:
                raise httpx.ConnectError("handshake") from ssl.SSLCertVerificationError("self-signed")
            return httpx.Response(200, headers=FULL)

        return real(transport=httpx.MockTransport(answer), **options)

    monkeypatch.setattr(httpx, "Client", client)
    result, note = observatory.fetch("a.example/")
    assert result.points["Strict-Transport-Security"][0] == -20
    assert result.points["Redirection"][0] == -20
    assert "certificate" in note


@pytest.mark.parametrize(("size", "read"), [(1_000_001, 1), (1_000_000, 2), (400_000, 3)])
def test_abuse_a_page_without_end_is_read_to_a_limit(size: int, read: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = endless(size, monkeypatch)
    assert observatory.fetch("http://localhost/")[0].score == 30
    assert len(sent) == read


def test_abuse_a_page_that_drips_is_read_to_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = endless(1, monkeypatch)
    times = iter((0.0, 1.0, 30.0, 30.1))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    observatory.fetch("http://localhost/")
    assert len(sent) == 3


def endless(size: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every site answer with a page that never ends, in pieces of a size; returns what was sent."""
    sent: list[int] = []

    def body() -> Iterator[bytes]:
        while True:
            sent.append(size)
            yield b"x" * size

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": "text/html"}, content=body())

    monkeypatch.setattr(httpx, "Client", functools.partial(httpx.Client, transport=httpx.MockTransport(answer)))
    return sent


def test_each_step_has_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering({"http://localhost/": PAGE}, monkeypatch)
    observatory.fetch("http://localhost/")
    assert asked[0].extensions["timeout"] == dict.fromkeys(("connect", "read", "write", "pool"), 10.0)


def test_abuse_nothing_that_a_terminal_would_obey_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = "<script src='http://x/\x1b[2J\u202e" + "y" * 5000 + "'></script>"
    monkeypatch.setattr(
        httpx,
        "Client",
        functools.partial(httpx.Client, transport=httpx.MockTransport(lambda _: httpx.Response(200, html=page))),
    )
    assert observatory.main("http://localhost/") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "http://x/?[2J\\u202eyyy" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) < 200


@given(st.text(max_size=200), st.text(max_size=100))
@settings(deadline=None, max_examples=100)
def test_abuse_no_page_and_no_header_breaks_it(html: str, value: str) -> None:
    names = ("Content-Security-Policy", "Set-Cookie", "Strict-Transport-Security", "Referrer-Policy", "X-Frame-Options")
    graded = grade([(name, value) for name in names], html=f"{html}<script src='{html}'>", host=value)
    assert 0 <= graded.score <= 145


def test_edge_a_hundred_characters_are_printed() -> None:
    assert observatory.printable("y" * 101) == "y" * 100
