"""19.6.3 in a real browser: the page of costs works under its own policy, on a phone and for a screen reader."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from exercise_3_19_6_solution import CostDashboard, create_app

from shared.api import caller_id
from shared.offline import OfflineModel
from tests.kit.browser import Browser, on_a_port, opened
from tests.kit.fakes import FakeClock
from tests.kit.serving import KEYS, SETTINGS, client_of

ALICE = caller_id(KEYS[0])
HOUR_S = 3600.0


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    yield from opened(tmp_path)


@pytest.fixture
def address() -> Iterator[str]:
    """Serve the app with two days of history: near the budget, one model without a price, one id that is long."""
    clock = FakeClock(1_785_000_000.0)  # 2026-07-25, so that a month has begun and is not over
    costs = CostDashboard(monthly_budget_usd=Decimal(25), clock=clock)
    for hour in range(48):
        for model, cents in (("gpt-4o-mini", 2), ("gpt-4o", 11), ("gpt-4-turbo", 31)):
            number = (hour * 7) % 13
            costs.record(ALICE, f"conversation-{number}", model, Decimal(cents * number) / 1000, tokens=900)
        clock.now += HOUR_S
    costs.record(ALICE, "f" * 64, "a-model-that-nobody-knows", None, tokens=5)
    costs.record(ALICE, "f" * 64, "gpt-4-turbo", Decimal(9), tokens=5)
    with on_a_port(create_app(SETTINGS, client=client_of(OfflineModel()), costs=costs)) as url:
        yield url
    costs.close()


def test_the_page_works_under_its_policy_on_a_phone_and_for_a_screen_reader(browser: Browser, address: str) -> None:
    browser.resize(360)
    browser.open(f"{address}/costs")
    assert browser.run("document.querySelector('main').hidden") is True
    browser.run("document.querySelector('input').focus()")
    typed = "document.querySelector('input').value = KEY; document.querySelector('form').requestSubmit()"
    said = "document.querySelector('[role=status]').textContent"
    browser.run(typed.replace("KEY", "'wrong'"))
    browser.until(f"{said}.includes('not valid')")
    browser.run(typed.replace("KEY", f"'{KEYS[0]}'"))
    browser.until("!document.querySelector('main').hidden")

    rows = browser.run("[...document.querySelectorAll('table')].map(t => [...t.rows].map(r => r.innerText))")
    models, conversations, hours = rows
    assert (len(hours), len(models), len(conversations)) == (24, 4, 10)
    assert sum("not over yet" in row for row in hours) == 1
    assert any("a-model-that-nobody-knows" in row and "1 call has no known price" in row for row in models)
    assert conversations[0].startswith("f" * 64)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth") is True, "no sideways scrolling"

    names = browser.names()
    for name in ("Last 24 hours, in UTC", "By model", "Most expensive conversations"):
        assert ("table", name) in names
    assert ("textbox", "API key") in names and ("button", "Show") in names
    assert ("heading", "Costs") in names and ("rowheader", "gpt-4o-mini") in names
    for width in (360, 1100):
        for dark in (False, True):
            browser.resize(width, dark=dark)
            assert browser.too_faint() == []
            browser.picture(f"costs-{width}{'-dark' if dark else ''}")
    troubles = [trouble for trouble in browser.troubles() if "401" not in trouble]
    assert troubles == [], json.dumps(troubles, indent=1)
