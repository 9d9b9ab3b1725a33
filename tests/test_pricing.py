"""The price table against sums written out by hand; an unknown model is an error."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest

from shared.offline import CHAT_MODELS, EMBEDDING_MODELS
from shared.pricing import AS_OF, MODEL_PAGE, PRICES, SOURCE, UnknownModel, cost_usd, price_of


def test_a_call_is_priced_by_direction() -> None:
    assert cost_usd("gpt-4o-mini", 1_000_000) == Decimal("0.15")
    assert cost_usd("gpt-4o-mini", 0, 1_000_000) == Decimal("0.60")
    assert cost_usd("gpt-4o", 1000, 10, 400) == Decimal("0.0015") + Decimal("0.0005") + Decimal("0.0001")
    assert cost_usd("gpt-4", 1, 1) == Decimal("0.00009")
    assert cost_usd("text-embedding-3-small", 8) == Decimal("0.00000016")


def test_without_a_discount_cached_input_costs_the_full_price() -> None:
    assert cost_usd("gpt-4-turbo", 1000, 0, 1000) == cost_usd("gpt-4-turbo", 1000) == Decimal("0.01")


def test_a_snapshot_may_cost_something_else_than_its_family() -> None:
    assert price_of("gpt-4o-2024-08-06") == price_of("gpt-4o")
    assert price_of("gpt-4o-2024-05-13") != price_of("gpt-4o")


@pytest.mark.parametrize("model", ["", "gpt-5000", "gpt-4o-2099-01-01", "GPT-4O"])
def test_failure_an_unknown_model_is_an_error_that_names_the_remedy(model: str) -> None:
    with pytest.raises(UnknownModel, match=r"shared/pricing\.py") as caught:
        cost_usd(model, 1)
    assert isinstance(caught.value, KeyError)
    assert caught.value.model == model


@pytest.mark.parametrize("tokens", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (5, 0, 6)])
def test_edge_counts_that_cannot_be_are_refused(tokens: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="token counts"):
        cost_usd("gpt-4o", *tokens)


def test_every_model_of_the_stand_in_has_a_price_and_the_table_its_date_and_source() -> None:
    assert {*CHAT_MODELS, *EMBEDDING_MODELS} <= set(PRICES)
    assert datetime.date.fromisoformat(AS_OF) > datetime.date(2026, 1, 1)
    assert SOURCE.startswith("https://")
    assert f"{MODEL_PAGE}gpt-5000" in str(UnknownModel("gpt-5000"))
    with pytest.raises(TypeError):
        PRICES["gpt-4o"] = price_of("gpt-4")  # type: ignore[index]


def test_whole_nano_dollars_are_exact_for_every_listed_price() -> None:
    for model, price in PRICES.items():
        for amount in (price.input, price.cached_input, price.output):
            assert amount * 1000 == int(amount * 1000), f"{model}: a token is not a whole number of nano-dollars"
