"""What the service is started with: the settings of exercise 2 in section 19.3, and those of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from urllib.parse import urlsplit

from exercise_2_19_3_solution import Config, about, flag, word
from exercise_3_19_2_solution import LIMIT
from exercise_3_19_4_solution import checked_webhook
from pydantic import SecretStr

from shared.api import caller_id


def address(*schemes: str) -> Callable[[str], SecretStr]:
    """Make a parser of addresses that may hold a password, and so are secrets."""

    def parse(given: str) -> SecretStr:
        try:
            parts = urlsplit(word(given))
            ok = parts.scheme in schemes and bool(parts.hostname or parts.path)
        except ValueError:  # its words could repeat the value
            ok = False
        if not ok:
            raise ValueError(f"must be an address like {schemes[0]}://host/...")
        return SecretStr(given)

    return parse


def webhook(given: str) -> SecretStr:
    """Accept an https address (http on this machine only); whoever knows it can post there."""
    try:
        checked_webhook(word(given))
    except ValueError:
        raise ValueError("must be an https:// address (http:// only on this machine)") from None
    return SecretStr(given)


def secret(given: str) -> SecretStr:
    """Accept a word that nobody should see."""
    return SecretStr(word(given))


def whole(given: str) -> int:
    """Accept a whole number that a log of as many times fits (see RateLimiter)."""
    if given.isascii() and given.isdigit() and len(given) <= 6 and 1 <= int(given) <= 100_000:
        return int(given)
    raise ValueError("must be a whole number from 1 to 100000")


def seconds(given: str) -> float:
    """Accept a time in seconds, up to an hour."""
    try:
        value = float(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise ValueError("must be a number of seconds, 3600 at most")
    return value


def dollars(given: str) -> Decimal:
    """Accept an amount."""
    try:
        usd = Decimal(given)
    except InvalidOperation:
        usd = Decimal(-1)
    if not 0 <= usd < 1_000_000_000:
        raise ValueError("must be an amount in dollars, such as 25 or 0.50")
    return usd


@dataclass(frozen=True)
class Production(Config):
    """Every setting of the service; REDIS_URL and DATABASE_URL are what scales it."""

    state_db: str = field(
        default="state.sqlite3", metadata=about("The SQLite file of one process without the next two", word)
    )
    redis_url: SecretStr | None = field(
        default=None,
        metadata=about(
            "Redis, for several processes: limits, queue, alert claims, metrics",
            address("redis", "rediss"),
            "redis://127.0.0.1:6379/0",
        ),
    )
    database_url: SecretStr | None = field(
        default=None,
        metadata=about(
            "PostgreSQL, for several processes: conversations, costs, semantic cache",
            address("postgresql", "postgres"),
            "postgresql://user:password@127.0.0.1/chapter",
        ),
    )
    rate_limit: int = field(default=LIMIT, metadata=about("Requests a minute that each caller's key may send", whole))
    allowed_hosts: str = field(default="*", metadata=about("Host names that are answered, comma-separated", word))
    deadline_s: float = field(default=60.0, metadata=about("Seconds that one answer may take, all told", seconds))
    drain_s: float = field(default=20.0, metadata=about("Seconds for requests to finish after SIGTERM", seconds))
    notice_s: float = field(default=0.0, metadata=about("Seconds before that for the balancer to notice", seconds))
    monthly_budget_usd: Decimal | None = field(
        default=None, metadata=about("What a month may cost, in dollars; see HARD_BUDGET", dollars, "25")
    )
    hard_budget: bool = field(default=False, metadata=about("1 refuses calls that the budget does not allow", flag))
    operator_key: SecretStr | None = field(
        default=None,
        metadata=about("The one of API_KEY whose owner sees everybody's costs", secret, "..."),
    )
    alert_webhook_url: SecretStr | None = field(
        default=None, metadata=about("Where alerts go besides the log", webhook, "https://hooks.slack.com/services/...")
    )
    cache: bool = field(default=True, metadata=about("0 turns the semantic cache off", flag, "1"))
    log_messages: bool = field(default=False, metadata=about("1 logs the beginning of messages", flag))
    build_sha: str = field(default="unknown", metadata=about("The build, shown at /health/ready", word))

    @property
    def operator(self) -> str | None:
        """The id of the caller who sees everybody's costs."""
        return caller_id(self.operator_key.get_secret_value()) if self.operator_key else None
