"""What the models cost: ONE table, with its date and source. Exact (Decimal); a model that is not in it is an error.

    cost_usd("gpt-4o-mini", input_tokens=1200, output_tokens=300)   ->   Decimal("0.00036")

Where a price is from: the models on sale stand on the page SOURCE; an older one (gpt-4-turbo, gpt-4, gpt-3.5-turbo), an
embedding model and each dated snapshot on a page of its own, MODEL_PAGE with its name. All are the standard tier.

Prices change. When AS_OF is old: open the two pages, edit the row (a string, so that no digit is lost) and AS_OF, and
run `pytest tests/test_pricing.py`. A model that you add needs a row for every name that the API answers with.
Nothing else in the repository knows a price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

AS_OF = "2026-06-21"  # read second-hand on that day: compare with the page itself before you rely on it
SOURCE = "https://developers.openai.com/api/docs/pricing"  # standard tier, USD per million tokens, text
MODEL_PAGE = "https://developers.openai.com/api/docs/models/"  # + the model's name
MILLION = 1_000_000


class UnknownModel(KeyError):
    """Nobody knows what this model costs; a guess would look like a fact."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(model)

    def __str__(self) -> str:
        page = f"{MODEL_PAGE}{self.model}"
        return f"no price for model {self.model!r} as of {AS_OF}: add it to shared/pricing.py from {page}"


@dataclass(frozen=True)
class Price:
    """USD per million tokens. Cached input is the part of the input that the provider had seen before."""

    input: Decimal
    cached_input: Decimal
    output: Decimal

    def cost_usd(self, input_tokens: int, output_tokens: int = 0, cached_tokens: int = 0) -> Decimal:
        """Return the exact price of one call. Cached tokens are a part of the input, reasoning tokens of the output,
        as in the API's `usage`: neither is added once more. Raises ValueError for counts that cannot be.
        """
        if min(input_tokens, output_tokens, cached_tokens) < 0 or cached_tokens > input_tokens:
            raise ValueError("token counts must not be negative, and cached tokens are a part of the input")
        fresh = input_tokens - cached_tokens
        return (fresh * self.input + cached_tokens * self.cached_input + output_tokens * self.output) / MILLION


def _price(input_usd: str, output_usd: str = "0", cached_usd: str | None = None) -> Price:
    return Price(Decimal(input_usd), Decimal(cached_usd or input_usd), Decimal(output_usd))  # no discount: full price


_BASE = {
    # model: input, output, cached input
    "gpt-4.1": _price("2.00", "8.00", "0.50"),
    "gpt-4.1-mini": _price("0.40", "1.60", "0.10"),
    "gpt-4.1-nano": _price("0.10", "0.40", "0.025"),
    "gpt-4o": _price("2.50", "10.00", "1.25"),
    "gpt-4o-mini": _price("0.15", "0.60", "0.075"),
    "gpt-4-turbo": _price("10.00", "30.00"),
    "gpt-4": _price("30.00", "60.00"),
    "gpt-3.5-turbo": _price("0.50", "1.50"),
    "text-embedding-3-small": _price("0.02"),
    "text-embedding-3-large": _price("0.13"),
}
# The API answers with the name of a snapshot. Each is listed: a snapshot may cost something else than its family.
_SNAPSHOTS = {
    "gpt-4.1-2025-04-14": _BASE["gpt-4.1"],
    "gpt-4.1-mini-2025-04-14": _BASE["gpt-4.1-mini"],
    "gpt-4.1-nano-2025-04-14": _BASE["gpt-4.1-nano"],
    "gpt-4o-2024-11-20": _BASE["gpt-4o"],
    "gpt-4o-2024-08-06": _BASE["gpt-4o"],
    "gpt-4o-2024-05-13": _price("5.00", "15.00"),
    "gpt-4o-mini-2024-07-18": _BASE["gpt-4o-mini"],
    "gpt-4-turbo-2024-04-09": _BASE["gpt-4-turbo"],
    "gpt-4-0613": _BASE["gpt-4"],
    "gpt-3.5-turbo-0125": _BASE["gpt-3.5-turbo"],
}
PRICES: Mapping[str, Price] = MappingProxyType(_BASE | _SNAPSHOTS)


def price_of(model: str) -> Price:
    """Return a model's price; raises UnknownModel."""
    try:
        return PRICES[model]
    except KeyError:
        raise UnknownModel(model) from None


def cost_usd(model: str, input_tokens: int, output_tokens: int = 0, cached_tokens: int = 0) -> Decimal:
    """Return the exact price of one call in USD; raises UnknownModel."""
    return price_of(model).cost_usd(input_tokens, output_tokens, cached_tokens)
