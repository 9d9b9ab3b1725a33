"""What a site's headers score by the published points of MDN's HTTP Observatory.

The points: https://developer.mozilla.org/en-US/observatory/docs/tests_and_scoring (read in November 2026).
Where they leave something open (several policies, `<meta>`, repeated headers), the scanner's own behaviour decides.
Not covered: the HSTS preload list (+5); two hosts count as one site when their last two labels agree.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

BROAD = frozenset(("*", "http:", "https:", "ftp:", "http://*", "https://*", "http://*.*", "https://*.*"))
PRIVATE = frozenset(("no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"))
TALKATIVE = frozenset(("origin", "origin-when-cross-origin", "unsafe-url", "no-referrer-when-downgrade"))
LETTERS = {100: "A+", 90: "A", 85: "A-", 80: "B+", 70: "B", 65: "B-", 60: "C+", 50: "C", 45: "C-", 40: "D+", 30: "D"}
FORGIVEN_S = 15_552_000  # half a year of 30-day months
BEST_COOKIES = (5, "Secure, HttpOnly, SameSite")
MAX_REDIRECTS = 10
MAX_BODY = 1_000_000  # bytes of a page that are looked at
TIMEOUT_S = 10.0  # for each step of a request
DEADLINE_S = 30.0  # for a whole body: a server may send one byte at a time


@dataclass(frozen=True)
class Grade:
    """The score, its letter, and each test's points with the reason."""

    score: int
    letter: str
    points: dict[str, tuple[int, str]]


def grade(
    headers: Iterable[tuple[str, str]], *, html: str = "", host: str = "", redirection: tuple[int, str] = (0, "")
) -> Grade:
    """Grade the headers of an answer of `host` to an HTTPS request that named `Origin: null`, and its page.

    From 100 down, and bonuses only from 90 up. `redirection` comes from whoever also asked over plain HTTP.
    """
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value.strip())
    page = Page.of(html)

    def value_of(name: str) -> str:
        return ", ".join(fields.get(name, ())).lower()

    policies = fields.get("content-security-policy", [])
    in_header = merged(policies)
    policy = merged([*policies, *page.meta("content-security-policy")])
    resource = value_of("cross-origin-resource-policy") or page.last("cross-origin-resource-policy")
    nosniff = value_of("x-content-type-options") == "nosniff"
    anybody = value_of("access-control-allow-origin") == "null"
    anybody = anybody and value_of("access-control-allow-credentials") == "true"
    hsts = _hsts_points(value_of("strict-transport-security"))
    framing = _frame_points(value_of("x-frame-options"))
    if policy and in_header and "frame-ancestors" in in_header:
        framing = (5, "by frame-ancestors")
    points = {
        "Content-Security-Policy": _policy_points(policy),
        "Cookies": _cookie_points(fields.get("set-cookie", []), hsts[0] == 0),
        "Cross-Origin Resource Sharing": (-50, "any origin, with credentials") if anybody else (0, "not for everybody"),
        "Redirection": redirection,
        "Referrer-Policy": _referrer_points([*fields.get("referrer-policy", []), *page.meta("referrer-policy")]),
        "Strict-Transport-Security": hsts,
        "Subresource Integrity": _script_points(page, host),
        "X-Content-Type-Options": (0, "nosniff") if nosniff else (-5, "not exactly nosniff"),
        "X-Frame-Options": framing,
        "Cross-Origin-Resource-Policy": {"": (0, "none"), "cross-origin": (0, resource)}.get(
            resource, (10 if resource in ("same-origin", "same-site") else -5, resource)
        ),
    }
    score = max(0, 100 + sum(min(0, value) for value, _ in points.values()))
    if score >= 90:
        score += sum(max(0, value) for value, _ in points.values())
    letter = next((letter for least, letter in LETTERS.items() if score >= least), "D-" if score >= 25 else "F")
    return Grade(score, letter, points)


class Page(HTMLParser):
    """The scripts of a page, and what it says in `<meta http-equiv>`; comments and texts count for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[dict[str, str]] = []
        self._metas: list[dict[str, str]] = []

    @classmethod
    def of(cls, html: str) -> Page:
        """Parse a page, however broken."""
        page = cls()
        with contextlib.suppress(AssertionError):  # the parser's word for "<![x["
            page.feed(html)
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep scripts and metas."""
        if tag in ("script", "meta"):
            found = {name: (value or "").strip() for name, value in reversed(attrs)}
            (self.scripts if tag == "script" else self._metas).append(found)

    def meta(self, name: str) -> list[str]:
        """Return the contents of every meta of that name."""
        return [meta.get("content", "") for meta in self._metas if meta.get("http-equiv", "").lower() == name]

    def last(self, name: str) -> str:
        """Return the last of them, which counts where there is no header."""
        return next(reversed(self.meta(name)), "").lower()


Policy = dict[str, set[str]]


def merged(policies: Iterable[str]) -> Policy | None:
    """Return what all policies together allow: {} for no policy at all, None for one that cannot be read."""
    result: Policy = {}
    parsed = [_directives(policy) for value in policies for policy in value.lower().split(",")]
    for number, directives in enumerate(parsed):
        if not directives:
            return None
        for name, sources in directives.items():
            result[name] = (result.get(name, set()) & sources or {"'none'"}) if number else sources
    return result


def _directives(policy: str) -> Policy | None:
    """Parse one policy; None when a directive stands in it twice."""
    found: Policy = {}
    for name, *sources in (part.split() for part in policy.split(";") if part.strip()):
        if name in found and not name.startswith("report-"):
            return None
        found.setdefault(name, set(sources) or {"'none'"})
    return found


def _policy_points(policy: Policy | None) -> tuple[int, str]:
    if not policy:
        return -25, "unreadable" if policy is None else "none"
    default = policy.get("default-src", {"*"})
    script, style, objects = (policy.get(name, default) for name in ("script-src", "style-src", "object-src"))
    inline = {"'unsafe-inline'", "data:"}
    script, style = (s - {"'unsafe-inline'"} if _hashed(s) else s for s in (script, style))
    if "'strict-dynamic'" in script:
        if not _hashed(script):
            return -25, "'strict-dynamic' without a nonce or hash"
        script = {s for s in script if s != "'self'" and not s.startswith(("http:", "https:", "ftp:", "*"))}
    passive = {source for name in ("img-src", "media-src") for source in policy.get(name, default)}
    others = policy.keys() - {"img-src", "media-src", "script-src"}
    active = script.union(*(policy[name] for name in others))
    if script & (BROAD | inline) or objects & BROAD:
        return -20, "scripts or plugins from anywhere"
    if _over_http(active):
        return -20, "active parts over plain HTTP"
    if "'unsafe-eval'" in script | style:
        return -10, "'unsafe-eval'"
    if _over_http(passive):
        return -10, "images over plain HTTP"
    if style & (BROAD | inline):
        return 0, "styles from anywhere"
    return (10, "default-src 'none'") if default == {"'none'"} else (5, "nothing unsafe")


def _hashed(sources: set[str]) -> bool:
    return any(re.match(r"'(nonce|sha(256|384|512))-", source) for source in sources)


def _over_http(sources: set[str]) -> bool:
    return any(source.startswith(("http:", "ftp:")) for source in sources)


def _hsts_points(value: str) -> tuple[int, str]:
    age = re.search(r'(?:^|;)\s*max-age="?(\d+)', value)
    if not age or "," in value:
        return -20, "unreadable" if value else "none"
    return 0 if float(age[1]) >= FORGIVEN_S else -10, f"{age[1]} s"


def _frame_points(value: str) -> tuple[int, str]:
    if value in ("deny", "sameorigin") or value.startswith("allow-from"):
        return 0, value
    return -20, "anybody may frame it"


def _referrer_points(values: list[str]) -> tuple[int, str]:
    if not values:
        return 0, "none"
    known = [
        word for value in values for part in value.split(",") if (word := part.strip().lower()) in PRIVATE | TALKATIVE
    ]
    if not known:
        return -5, "unreadable"
    return (5 if known[-1] in PRIVATE else -5), known[-1]


def _cookie_points(cookies: list[str], hsts: bool) -> tuple[int, str]:
    if not cookies:
        return 0, "none"
    return min(_one_cookie(cookie, hsts) for cookie in cookies)


def _one_cookie(cookie: str, hsts: bool) -> tuple[int, str]:
    name, *attributes = (part.strip().lower() for part in cookie.split(";"))
    name, secure = name.split("=")[0], "secure" in attributes
    session = any(word in name for word in ("login", "sess"))
    same_site = next((a.partition("=")[2].strip() for a in attributes if a.startswith("samesite")), None)
    if session and not (secure or hsts):
        return -40, "a session cookie without Secure"
    if session and "httponly" not in attributes:
        return -30, "a session cookie without HttpOnly"
    if same_site not in (None, "lax", "strict", "none") or (same_site == "none" and not secure):
        return -20, "a SameSite that browsers refuse"
    if "csrf" in name and not same_site:
        return -20, "an anti-CSRF cookie without SameSite"
    if not secure:
        return (-10 if session else -5) if hsts else -20, "a cookie without Secure"
    return BEST_COOKIES if same_site else (0, "no SameSite")


def _script_points(page: Page, host: str) -> tuple[int, str]:
    """Judge scripts of other sites; the bonus is for integrity without any of them unsafe."""
    worst, bonus = (0, "no scripts from elsewhere"), False
    for script in page.scripts:
        source, checked = script.get("src", ""), bool(script.get("integrity"))
        scheme = re.match(r"(https?:)?//", source, re.IGNORECASE)
        if not source or scheme is None or (scheme[1] and _site(urlsplit(source).hostname or "") == _site(host)):
            bonus |= checked
            continue
        bonus = True
        if (scheme[1] or "").lower() != "https:":
            worst = min(worst, (-20 if checked else -50, source))
        elif not checked:
            worst = min(worst, (-5, source))
    return (5, "with integrity") if bonus and worst[0] == 0 else worst


def _site(host: str) -> str:
    return ".".join(host.lower().split(".")[-2:])


def main(url: str) -> int:
    """Fetch, grade and print one URL; returns 0, or 2 when there is no answer to grade."""
    import httpx

    try:
        result, note = fetch(url)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        print(f"cannot grade {printable(url)}: {printable(str(error) or type(error).__name__)}", file=sys.stderr)
        return 2
    print(f"{printable(url)}: {result.letter} ({result.score}), by the points of MDN's HTTP Observatory")
    for test, (value, why) in result.points.items():
        print(f"  {value:+4d}  {test}: {printable(why)}")
    if sum(value for value, _ in result.points.values()) + 100 != result.score:
        print("  bonuses count only where the penalties leave 90 or more")
    print(note)
    return 0


def printable(text: str) -> str:
    """Return what a site said without anything that a terminal would obey, and not too long."""
    plain = text[:100].encode("ascii", "backslashreplace").decode()
    return "".join(c if c.isprintable() else "?" for c in plain)


def fetch(url: str) -> tuple[Grade, str]:
    """Ask for the page over HTTPS, and once over HTTP to see where that leads; raises httpx's errors.

    On this machine there is no HTTPS: there it asks as the proxy in front of the app would, which uvicorn believes.
    A site without HTTPS, or with a certificate that does not hold, is graded all the same, without its HSTS.
    """
    if "://" not in url:
        url = f"https://{url}"
    if urlsplit(url).scheme == "http" and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1"):
        local = _get(url, {"X-Forwarded-Proto": "https"})
        return _graded(local, (0, "not asked")), "asked as a proxy on this machine that serves HTTPS would ask"
    secure, plain = re.sub(r"^http:", "https:", url), re.sub(r"^https:", "http:", url)
    answer, note = _over_tls(secure)
    redirection = (-20, "to a certificate that does not hold") if note else _redirection(plain)
    if answer is None:
        note = "nothing answers over HTTPS: its answer over plain HTTP was graded"
    return _graded(answer or _get(plain), redirection, hsts=not note), note


@dataclass(frozen=True)
class Answer:
    """The last answer of a chain of redirections: its headers and the start of its page."""

    urls: list[httpx.URL]
    headers: list[tuple[str, str]]
    html: str


def _get(url: str, headers: dict[str, str] | None = None, *, verify: bool = True) -> Answer:
    import httpx

    options = {"headers": {"Origin": "null", **(headers or {})}, "timeout": TIMEOUT_S, "verify": verify}
    with (
        httpx.Client(follow_redirects=True, max_redirects=MAX_REDIRECTS, **options) as http,  # type: ignore[arg-type]
        http.stream("GET", url) as answer,
    ):
        html = b""
        until = time.monotonic() + DEADLINE_S
        if "html" in answer.headers.get("content-type", ""):
            for chunk in answer.iter_bytes():
                html += chunk
                if len(html) > MAX_BODY or time.monotonic() > until:
                    break
        urls = [response.url for response in (*answer.history, answer)]
        return Answer(urls, answer.headers.multi_items(), html[:MAX_BODY].decode("utf-8", "replace"))


def _over_tls(url: str) -> tuple[Answer | None, str]:
    """Return the answer, and a note where its certificate does not hold; no answer where nothing listens."""
    import httpx

    try:
        return _get(url), ""
    except httpx.ConnectError as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, ssl.SSLCertVerificationError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            return None, ""
        return _get(url, verify=False), "its certificate does not hold: HSTS does not count"


def _graded(answer: Answer, redirection: tuple[int, str], *, hsts: bool = True) -> Grade:
    headers = [(name, value) for name, value in answer.headers if hsts or name.lower() != "strict-transport-security"]
    return grade(headers, html=answer.html, host=answer.urls[-1].host, redirection=redirection)


def _redirection(url: str) -> tuple[int, str]:
    import httpx

    try:
        urls = _get(url).urls
    except httpx.TooManyRedirects:
        return -20, "redirects without an end"
    except httpx.TransportError:
        return 0, "nothing answers over HTTP"
    if urls[-1].scheme != "https":
        return -20, "plain HTTP stays plain"
    start, step = urls[:2]
    if step.scheme != "https":
        return -10, "the first step is not to HTTPS"
    return (0, "to HTTPS") if step.host == start.host else (-5, "to another host at once")
