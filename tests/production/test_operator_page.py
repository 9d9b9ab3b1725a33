"""The operator's page: its numbers are those of the service, and in a real browser it works for everybody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from production.app import create_app
from production.operator_page import PAGE
from shared.offline import Fault, OfflineModel
from tests.kit.browser import Browser, on_a_port, opened
from tests.kit.serving import KEYS, client_of
from tests.production.test_app import config_of, service

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OPERATOR = {"X-API-Key": KEYS[1]}


@pytest.mark.anyio
async def test_the_numbers_are_those_of_the_service(tmp_path: Path) -> None:
    model = OfflineModel()
    budget = Decimal(1)
    async with service(tmp_path, model, operator_key=SecretStr(KEYS[1]), monthly_budget_usd=budget) as (http, _):
        for _ in range(3):
            assert (await http.post("/v1/chat", json={"message": "What is 6 * 7?"})).status_code == 200
        model.next(Fault(status=500))
        assert (await http.post("/v1/chat", json={"message": "Tell me about tides."})).status_code == 502
        accepted = await http.post("/v1/chat/queue", json={"message": "What is 1 + 1?"})
        await http.get(accepted.headers["location"], params={"wait": 10})  # its costs are there, too
        mine = (await http.get("/operator")).json()
        all_of_it = (await http.get("/operator", headers=OPERATOR)).json()
        costs = (await http.get("/costs", headers=OPERATOR)).json()
    assert accepted.status_code == 202
    assert (mine["status"], mine["build"], mine["model_circuit"]) == ("ready", "abc123", "closed")
    assert set(mine["dependencies"].values()) == {"ok"}
    assert sum(each["requests"] for each in mine["requests_per_minute"]) == 6
    assert all_of_it["response_time"]["samples"] == 6, "looking changes nothing"
    assert [each["count"] for each in mine["top_errors"] if "502" in each["error"]] == [1]
    assert sum(mine["queue"].values()) == 1
    assert mine["cache"]["exact"] == 2
    assert mine["in_progress"] == 1, "the question itself"
    assert (mine["costs_of"], all_of_it["costs_of"]) == ("caller", "everybody")
    assert all_of_it["budget"]["spent_usd"] == costs["budget_status"]["spent_usd"] > 0
    assert all_of_it["budget"]["budget_usd"] == 1


@pytest.mark.anyio
async def test_the_numbers_need_a_key_and_the_page_holds_none(tmp_path: Path) -> None:
    async with service(tmp_path) as (http, _):
        del http.headers["X-API-Key"]
        page = await http.get("/operator", headers=HTML)
        refused = await http.get("/operator")
        wrong = await http.get("/operator", headers={"X-API-Key": "wrong"})
    assert (refused.status_code, wrong.status_code, page.status_code) == (401, 401, 200)
    assert page.text == PAGE.read_text(encoding="utf-8")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
    assert page.headers["cache-control"] == "no-store" and page.headers["vary"] == "Accept"


@pytest.mark.anyio
async def test_the_queue_that_processes_share_is_counted(redis_url: str) -> None:
    import redis.asyncio as redis

    from production.operator_page import queued
    from production.redis_stores import RedisJobs

    async def work(_: object) -> str:
        return "done"

    async with redis.Redis.from_url(redis_url) as client:
        jobs = RedisJobs(client, work)
        assert await queued(jobs) == {"queued": 0, "processing": 0}
        accepted = [await jobs.enqueue("hello", caller="caller-1", conversation_id=c) for c in ("a", "a", "b")]
        assert await queued(jobs) == {"queued": 3, "processing": 0}
        await client.zrem("jobs:line", accepted[0].request_id)  # as the script START does first
        assert await queued(jobs) == {"queued": 2, "processing": 1}


def test_the_page_is_self_contained() -> None:
    page = PAGE.read_text(encoding="utf-8")
    links = ("http://", "https://", "src=", " style=", "onclick", "innerHTML", "eval(", "localStorage", "cookie")
    assert [word for word in links if word in page.replace("http://www.w3.org/2000/svg", "")] == []


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    yield from opened(tmp_path / "browser")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve the whole service with some history: answers, cache hits, errors of every kind, queued requests."""
    model = OfflineModel()
    config = config_of(
        tmp_path, operator_key=SecretStr(KEYS[1]), monthly_budget_usd=Decimal("0.0005"), build_sha="3f2a9c1"
    )
    with on_a_port(create_app(config, client=client_of(model))) as url, httpx.Client(base_url=url) as http:
        http.headers["X-API-Key"] = KEYS[0]
        for number in range(12):
            http.post("/v1/chat", json={"message": f"What is {number % 5} * 7?"})
        for status in (500, 429, 500):
            model.next(Fault(status=status))
            http.post("/v1/chat", json={"message": f"Tell me about {status} tides."})
        http.post("/v1/chat", json={"message": ""})
        http.get("/nowhere")
        for number in range(3):
            http.post("/v1/chat/queue", json={"message": f"What is {number} + 1?"})
        yield url


def test_the_page_works_under_its_policy_on_a_phone_and_for_a_screen_reader(browser: Browser, address: str) -> None:
    browser.resize(360)
    browser.open(f"{address}/operator")
    assert browser.run("document.querySelector('main').hidden") is True
    said = "document.getElementById('status').textContent"

    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "key", "the first stop of the keyboard"
    browser("Input.insertText", text="wrong")
    browser.press("Enter")
    browser.until(f"{said} === 'This key is not valid.'")
    browser.run("document.getElementById('key').focus()")
    browser("Input.insertText", text=KEYS[1])
    browser.press("Enter")
    browser.until("!document.querySelector('main').hidden")
    browser.until("document.activeElement.id === 'pause'")

    text = browser.run("document.querySelector('main').innerText")
    assert "ready" in text and "sqlite" in text and "requests in the last minute" in text
    assert "for 95 %" in text and "502 model_unavailable" in text and "422" in text
    assert "answered from the cache" in text and "Everybody's costs" in text
    assert browser.run("document.querySelectorAll('#requests rect').length") == 5
    assert browser.run("document.querySelectorAll('#hours rect').length") == 24
    assert browser.run("document.getElementById('key').value") == "", "the key is not left on the screen"
    assert browser.run("document.documentElement.scrollWidth <= innerWidth") is True, "no sideways scrolling"
    small = "[...document.querySelectorAll('button, input')].filter(e => e.offsetParent && e.offsetHeight < 44).length"
    assert browser.run(small) == 0, "a finger finds every button"

    names = browser.names()
    headings = {name for role, name in names if role == "heading"}
    assert headings == {
        "Agent service", "Health", "Requests", "Response time", "Errors", "Alerts", "Queue", "Cache", "Costs and budget"
    }  # fmt: skip
    assert ("button", "Pause") in names and ("rowheader", "requests in progress") in names
    assert any(role == "image" and name.startswith("requests per minute") for role, name in names)
    for width in (360, 1200):
        for dark in (False, True):
            browser.resize(width, dark=dark)
            assert browser.too_faint() == []
            browser.picture(f"operator-{width}{'-dark' if dark else ''}")
    troubles = [trouble for trouble in browser.troubles() if "401" not in trouble]
    assert troubles == [], json.dumps(troubles, indent=1)


def test_it_lives_it_pauses_and_it_says_when_the_service_has_gone(browser: Browser, address: str) -> None:
    browser.open(f"{address}/operator")
    browser.run(f"key = '{KEYS[0]}'; refresh()")
    seen = "document.getElementById('times').textContent"
    before = browser.run(f"new Promise(r => setTimeout(r, 0)) && {seen}")
    browser.until("!document.querySelector('main').hidden")
    before = browser.run(seen)
    httpx.post(f"{address}/v1/chat", json={"message": "hello"}, headers={"X-API-Key": KEYS[0]})
    browser.run("refresh()")
    assert browser.run(seen) != before
    browser.run("document.getElementById('pause').click()")
    assert browser.run("document.getElementById('status').textContent") == "Paused."
    assert browser.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    browser.run("fetch = () => Promise.reject(new TypeError('gone')); refresh()")
    browser.until("document.getElementById('status').textContent.includes('cannot be reached')")
    assert browser.run(seen) != "", "the last numbers stay"
    browser.run("document.getElementById('other').click()")
    assert browser.run("document.activeElement.id") == "key"
    assert browser.run("document.querySelector('main').hidden") is True
