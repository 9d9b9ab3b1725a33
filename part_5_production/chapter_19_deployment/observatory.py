"""What a site's headers score by the published points of MDN's HTTP Observatory.

The points: https://developer.mozilla.org/en-US/observatory/docs/tests_and_scoring (read in November 2026).
Not covered: the HSTS preload list (+5) and policies in `<meta>`; of several policies the first counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

BROAD = frozenset(("*", "http:", "https:", "ftp:", "http://*", "https://*", "http://*.*", "https://*.*"))
PRIVATE = ("no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin")
LETTERS = {100: "A+", 90: "A", 85: "A-", 80: "B+", 70: "B", 65: "B-", 60: "C+", 50: "C", 45: "C-", 40: "D+", 30: "D"}
FORGIVEN_S = 15_552_000  # half a year of 30-day months


@dataclass(frozen=True)
class Grade:
    """The score, its letter, and each test's points with the reason."""

    score: int
    letter: str
    points: dict[str, tuple[int, str]]


def grade(headers: Iterable[tuple[str, str]], *, html: str = "", redirection: tuple[int, str] = (0, "")) -> Grade:
    """Grade the headers of an answer to an HTTPS request that named `Origin: null`.

    From 100 down, and bonuses only from 90 up. `redirection` comes from whoever also asked over plain HTTP.
    """
    fields: dict[str, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value.strip())

    def first(name: str) -> str:
        return fields.get(name, [""])[0].lower()

    policy = _directives(first("content-security-policy"))
    age = re.search(r"(?:^|;)\s*max-age=(\d+)", first("strict-transport-security"))
    referrer = [p.strip() for p in first("referrer-policy").split(",") if p.strip()]
    nosniff = first("x-content-type-options") == "nosniff"
    frame = first("x-frame-options")
    resource = first("cross-origin-resource-policy")
    anybody = first("access-control-allow-origin") == "null" and first("access-control-allow-credentials") == "true"
    framing: tuple[int, str] = (-20, "anybody may frame it")
    if policy and "frame-ancestors" in policy:
        framing = (5, "by frame-ancestors")
    elif frame in ("deny", "sameorigin") or frame.startswith("allow-from"):
        framing = (0, frame)
    points = {
        "Content-Security-Policy": _policy_points(policy, "content-security-policy" in fields),
        "Cookies": _cookie_points(fields.get("set-cookie", []), bool(age)),
        "Cross-Origin Resource Sharing": (-50, "any origin, with credentials") if anybody else (0, "not for everybody"),
        "Redirection": redirection,
        "Referrer-Policy": ((5 if referrer[-1] in PRIVATE else -5), referrer[-1]) if referrer else (0, "none"),
        "Strict-Transport-Security": (
            (0 if int(age[1]) >= FORGIVEN_S else -10, f"{age[1]} s") if age else (-20, "none")
        ),
        "Subresource Integrity": _script_points(html),
        "X-Content-Type-Options": (0, "nosniff") if nosniff else (-5, "none"),
        "X-Frame-Options": framing,
        "Cross-Origin-Resource-Policy": {"": (0, "none"), "cross-origin": (0, resource)}.get(
            resource, (10 if resource in ("same-origin", "same-site") else -5, resource)
        ),
    }
    score = max(0, 100 + sum(value for value, _ in points.values() if value < 0))
    if score >= 90:
        score += sum(value for value, _ in points.values() if value > 0)
    letter = next((letter for least, letter in LETTERS.items() if score >= least), "D-" if score >= 25 else "F")
    return Grade(score, letter, points)


def _directives(policy: str) -> dict[str, set[str]] | None:
    """Parse a policy; None when a directive stands in it twice."""
    found: dict[str, set[str]] = {}
    for name, *sources in (part.split() for part in policy.split(";") if part.strip()):
        if name in found:
            return None
        found[name] = set(sources) or {"'none'"}
    return found


def _policy_points(policy: dict[str, set[str]] | None, sent: bool) -> tuple[int, str]:
    if not policy:
        return -25, "unreadable" if sent else "none"
    default = policy.get("default-src", {"*"})
    script, style, objects = (policy.get(name, default) for name in ("script-src", "style-src", "object-src"))
    inline = {"'unsafe-inline'", "data:"}
    hashed = {s for s in script | style if re.match(r"'(nonce|sha(256|384|512))-", s)}
    script, style = (s - {"'unsafe-inline'"} if s & hashed else s for s in (script, style))
    passive = {source for name in ("img-src", "media-src") for source in policy.get(name, default)}
    active = {s for name, sources in policy.items() if name not in ("img-src", "media-src") for s in sources}
    if script & (BROAD | inline) or objects & BROAD:
        return -20, "scripts or plugins from anywhere"
    if any(source.startswith(("http:", "ftp:")) for source in active):
        return -20, "active parts over plain HTTP"
    if "'unsafe-eval'" in script | style:
        return -10, "'unsafe-eval'"
    if any(source.startswith(("http:", "ftp:")) for source in passive):
        return -10, "images over plain HTTP"
    if style & (BROAD | inline):
        return 0, "styles from anywhere"
    return (10, "default-src 'none'") if default == {"'none'"} else (5, "nothing unsafe")


def _cookie_points(cookies: list[str], hsts: bool) -> tuple[int, str]:
    worst, all_same_site = (5, "Secure, HttpOnly, SameSite"), True
    for cookie in cookies:
        name, *attributes = (part.strip().lower() for part in cookie.split(";"))
        session = any(word in name.split("=")[0] for word in ("login", "sess"))
        same_site = next((a[9:] for a in attributes if a.startswith("samesite=")), "")
        all_same_site &= same_site in ("lax", "strict")
        if "secure" not in attributes:
            harm = (-10 if hsts else -40) if session else (-5 if hsts else -20)
            worst = min(worst, (harm, "a cookie without Secure"))
        if session and "httponly" not in attributes:
            worst = min(worst, (-30, "a session cookie without HttpOnly"))
        if "csrf" in name.split("=")[0] and not same_site:
            worst = min(worst, (-20, "an anti-CSRF cookie without SameSite"))
    if not cookies:
        return 0, "none"
    return worst if worst[0] < 0 or all_same_site else (0, "no SameSite")


def _script_points(html: str) -> tuple[int, str]:
    points = (0, "no scripts from elsewhere")
    for tag in re.findall(r"<script\b[^>]*>", html, re.IGNORECASE):
        source = re.search(r"""\bsrc\s*=\s*["']?([^"'\s>]+)""", tag, re.IGNORECASE)
        if source and re.match(r"(https?:)?//", source[1], re.IGNORECASE):
            safe, checked = source[1].lower().startswith("https:"), "integrity" in tag.lower()
            here = (5 if checked else -5) if safe else (-20 if checked else -50)
            points = min(points, (here, source[1])) if points[0] else (here, source[1])
    return points


def main(url: str) -> int:
    """Fetch, grade and print one URL; returns 0, or 2 when there is no answer to grade."""
    import httpx

    try:
        result, note = fetch(url)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        print(f"cannot grade {url}: {str(error) or type(error).__name__}", file=sys.stderr)
        return 2
    print(f"{url}: {result.letter} ({result.score}), by the points of MDN's HTTP Observatory")
    for test, (value, why) in result.points.items():
        print(f"  {value:+4d}  {test}: {why}".encode("ascii", "backslashreplace").decode())
    if sum(value for value, _ in result.points.values()) + 100 != result.score:
        print("  bonuses count only where the penalties leave 90 or more")
    print(note)
    return 0


def fetch(url: str) -> tuple[Grade, str]:
    """Ask for the page over HTTPS, and once over HTTP to see where that leads; raises httpx's errors.

    On this machine there is no HTTPS: there it asks as the proxy in front of the app would, which uvicorn believes.
    """
    import httpx

    if "://" not in url:
        url = f"https://{url}"
    local = urlsplit(url).scheme == "http" and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
    headers = {"Origin": "null", **({"X-Forwarded-Proto": "https"} if local else {})}
    with httpx.Client(headers=headers, timeout=10.0, follow_redirects=True, max_redirects=5) as http:
        if local:
            redirection, note = (0, "not asked"), "asked as a proxy on this machine that serves HTTPS would ask"
            answer = http.get(url)
        else:
            redirection, note = _redirection(http, url), ""
            answer = http.get(re.sub(r"^http:", "https:", url))
    html = answer.text if "html" in answer.headers.get("content-type", "") else ""
    return grade(answer.headers.multi_items(), html=html, redirection=redirection), note


def _redirection(http: httpx.Client, url: str) -> tuple[int, str]:
    import httpx

    try:
        answer = http.get(re.sub(r"^https:", "http:", url))
    except httpx.ConnectError:
        return 0, "nothing listens on HTTP"
    if answer.url.scheme != "https":
        return -20, "plain HTTP stays plain"
    start, step = [response.url for response in (*answer.history, answer)][:2]
    if step.scheme != "https":
        return -10, "the first step is not to HTTPS"
    return (0, "to HTTPS") if step.host == start.host else (-5, "to another host at once")
