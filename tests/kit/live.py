"""`LIVE=1`: the real API behind a forwarder on this machine that counts, caps and prices every call.

What is run or checked talks to the forwarder as it talks to the stand-in; the key never reaches it. A call whose worst
case would exceed the budget is refused before it is made. Without a key, without a yes and in CI nothing is asked.

Limit: the bound holds for the dated prices of shared/pricing.py; a model without a price is refused.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shared.config import PLACEHOLDER_KEY, environment
from shared.pricing import AS_OF, PRICES, cost_usd
from tests.kit.background import Background

OPENAI = "https://api.openai.com/v1"
CALLS = 100
BUDGET_USD = Decimal("0.50")
OUTPUT_TOKENS = 300
PATIENCE_S = 60.0
LIMITS = {"/chat/completions": "max_completion_tokens", "/responses": "max_output_tokens", "/embeddings": ""}


class NotLive(Exception):
    """Why the real API is not asked, and what to do about it."""


@dataclass(frozen=True)
class Account:
    """Where the real API is, and who pays."""

    key: str
    url: str

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Account:
        """Read it from the environment laid over `.env`; raises NotLive."""
        if env.get("CI", "").lower() not in ("", "0", "false"):
            raise NotLive("LIVE=1 is refused in CI: tests must not spend money")
        key = env.get("OPENAI_API_KEY", "").strip()
        if key in ("", PLACEHOLDER_KEY):
            raise NotLive("LIVE=1 needs OPENAI_API_KEY, in the environment or in .env")
        return cls(key, (env.get("OPENAI_BASE_URL", "").strip() or OPENAI).rstrip("/"))


class Forwarder:
    """Passes calls on to the real API, up to a number of calls and a budget; `said` tells which answers a text has."""

    controlled = False  # nobody can tell the real API to fail or to wait

    def __init__(self, account: Account, *, calls: int = CALLS, budget_usd: Decimal = BUDGET_USD) -> None:
        self._account = account
        self._calls, self._budget_usd = calls, budget_usd
        self._answers: list[str] = []
        self.calls = 0
        self.spent_usd = Decimal(0)
        self._background = Background(self)
        self.url = f"{self._background.url}/v1"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await (await self._answer(Request(scope, receive)))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path.removeprefix("/v1")
        raw = await request.body()
        try:
            body = json.loads(raw)
            model = body["model"]
        except (ValueError, KeyError, TypeError):
            return _refusal(400, "The body must be JSON that names a model.")
        if path not in LIMITS or model not in PRICES or body.get("n", 1) != 1:
            return _refusal(400, f"LIVE=1 does not forward {path} to {model!r}: its price is not known here.")
        body, most_out = _capped(path, body)
        worst_usd = cost_usd(model, len(raw), most_out)  # a token is at least one byte
        if self.calls >= self._calls or self.spent_usd + worst_usd > self._budget_usd:
            return _refusal(429, "LIVE=1 has come to its limit of calls or of money.")
        self.calls += 1
        self.spent_usd += worst_usd
        async with httpx.AsyncClient(timeout=PATIENCE_S) as http:
            try:
                came = await http.post(
                    self._account.url + path, json=body, headers={"Authorization": f"Bearer {self._account.key}"}
                )
            except httpx.HTTPError as error:
                return _refusal(502, f"The real API could not be reached: {type(error).__name__}.")
        if used := _usage(came):
            self.spent_usd += cost_usd(model, *used) - worst_usd
        self._answers += _texts(came)
        return Response(came.content, came.status_code, media_type=came.headers.get("content-type"))

    def said(self, text: str) -> set[str]:
        """Return the real answers that a text carries, as they are or as they stand in JSON."""
        return {said for said in self._answers if said and (said in text or json.dumps(said)[1:-1] in text)}

    def told(self) -> str:
        """Return what it came to."""
        return f"calls of the real API: {self.calls}, for at most {self.spent_usd:.6f} USD"

    def close(self) -> None:
        """Stop forwarding."""
        self._background.close()


def _capped(path: str, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the body with a limit on the answer's length, and that limit in tokens."""
    if not (name := LIMITS[path]):
        return body, 0
    name = "max_tokens" if name not in body and "max_tokens" in body else name
    asked = body.get(name)
    most = min(asked, OUTPUT_TOKENS) if isinstance(asked, int) else OUTPUT_TOKENS
    return body | {name: most}, most


def _usage(came: httpx.Response) -> tuple[int, int] | None:
    try:
        usage = came.json()["usage"]
        return usage.get("prompt_tokens", usage.get("input_tokens")), usage.get(
            "completion_tokens", usage.get("output_tokens", 0)
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _texts(came: httpx.Response) -> list[str]:
    try:
        body = came.json()
        chats = [choice["message"]["content"] for choice in body.get("choices", [])]
        return chats + [p["text"] for item in body.get("output", []) for p in item.get("content", []) if "text" in p]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "live_limit", "param": None, "code": None}}, status)


def go_live(
    env: Mapping[str, str] | None = None,
    *,
    ask: Callable[[str], str] = input,
    calls: int = CALLS,
    budget_usd: Decimal = BUDGET_USD,
) -> Forwarder:
    """Say what it may cost, ask, and open the way to the real API; raises NotLive."""
    account = Account.of({**environment(), "CI": os.environ.get("CI", "")} if env is None else env)
    print(
        f"LIVE: this asks {urlsplit(account.url).hostname} at most {calls} times, for at most {budget_usd} USD\n"
        f"      (prices of {AS_OF} in shared/pricing.py; answers are cut at {OUTPUT_TOKENS} tokens).",
        flush=True,
    )
    try:
        yes = ask("      Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        yes = False
    if not yes:
        raise NotLive("nothing was asked")
    return Forwarder(account, calls=calls, budget_usd=budget_usd)


def run_live(command: list[str]) -> int:
    """Run a script against the real API, after asking; it gets a key that is none."""
    try:
        forwarder = go_live()
    except NotLive as reason:
        print(f"cannot run  {reason}", file=sys.stderr)
        return 2
    env = dict(os.environ) | {"OPENAI_API_KEY": "sk-by-the-forwarder", "OPENAI_BASE_URL": forwarder.url, "OFFLINE": ""}
    try:
        status = subprocess.run(command, env=env, check=False).returncode
    finally:
        print(f"\n{forwarder.told()}", flush=True)
        forwarder.close()
    return status
