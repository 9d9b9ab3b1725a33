"""LIVE=1, against the stand-in in the place of the real API: asked for, counted, capped, and never by default."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import openai
import pytest

from shared.pricing import cost_usd
from tests.chapter import FOLDER, ROOT
from tests.kit.app import Bench
from tests.kit.contract import contract
from tests.kit.judging import judge_target
from tests.kit.live import OUTPUT_TOKENS, Account, Forwarder, NotLive, go_live
from tests.kit.standin import StandIn
from tests.kit.target import Target

KEY = "sk-the-real-one"


@pytest.fixture
def api() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture
def forwarder(api: StandIn) -> Iterator[Forwarder]:
    live = Forwarder(Account(KEY, api.url), calls=3)
    yield live
    live.close()


def sdk(live: Forwarder) -> openai.OpenAI:
    return openai.OpenAI(api_key="sk-none", base_url=live.url, max_retries=0)


def test_a_call_is_forwarded_capped_and_priced(api: StandIn, forwarder: Forwarder) -> None:
    chat = sdk(forwarder).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "What is 6 * 7?"}], max_tokens=9_999
    )
    assert api.model.calls[-1].body["max_tokens"] == OUTPUT_TOKENS
    assert chat.usage and forwarder.spent_usd == cost_usd(
        "gpt-4o-mini", chat.usage.prompt_tokens, chat.usage.completion_tokens
    )
    response = sdk(forwarder).responses.create(model="gpt-4o", input="hello")
    assert api.model.calls[-1].body["max_output_tokens"] == OUTPUT_TOKENS
    assert forwarder.said(response.model_dump_json()) == {response.output_text}
    assert forwarder.calls == 2 and "API: 2," in forwarder.told()


def test_a_stream_is_forwarded_and_priced_at_its_worst_case(forwarder: Forwarder) -> None:
    stream = sdk(forwarder).chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert "hello" in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert forwarder.spent_usd >= cost_usd("gpt-4o", 0, OUTPUT_TOKENS)


def test_the_number_of_calls_and_the_budget_are_limits(api: StandIn, forwarder: Forwarder) -> None:
    for _ in range(3):
        sdk(forwarder).embeddings.create(model="text-embedding-3-small", input="hello")
    with pytest.raises(openai.RateLimitError, match="limit"):
        sdk(forwarder).embeddings.create(model="text-embedding-3-small", input="hello")
    poor = Forwarder(Account(KEY, api.url), budget_usd=Decimal("0.01"))
    try:
        with pytest.raises(openai.RateLimitError, match="money"):
            sdk(poor).chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "hello"}])
        assert (poor.calls, len(api.model.calls)) == (0, 3) and poor.spent_usd == 0
    finally:
        poor.close()


@pytest.mark.parametrize(
    "body", ['{"model": "gpt-99", "messages": []}', '{"model": "gpt-4", "n": 50}', "[]", "not JSON"]
)
def test_what_has_no_price_is_not_forwarded(body: str, api: StandIn, forwarder: Forwarder) -> None:
    assert httpx.post(f"{forwarder.url}/chat/completions", content=body).status_code == 400
    assert httpx.post(f"{forwarder.url}/images", content='{"model": "gpt-4o"}').status_code == 400
    assert not api.model.calls and not forwarder.calls


@pytest.mark.parametrize(
    ("env", "answer", "why"),
    [
        ({"OPENAI_API_KEY": KEY, "CI": "true"}, "y", "refused in CI"),
        ({}, "y", "needs OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": KEY}, "", "nothing was asked"),
        ({"OPENAI_API_KEY": KEY}, "no", "nothing was asked"),
    ],
)
def test_it_goes_live_only_with_a_key_and_a_yes_and_not_in_ci(env: dict[str, str], answer: str, why: str) -> None:
    with pytest.raises(NotLive, match=why):
        go_live(env, ask=lambda question: answer)


def test_no_answer_is_no(capsys: pytest.CaptureFixture[str]) -> None:
    def nobody(question: str) -> str:
        raise EOFError

    with pytest.raises(NotLive, match="nothing was asked"):
        go_live({"OPENAI_API_KEY": KEY}, ask=nobody)
    said = capsys.readouterr().out
    assert "at most 100 times" in said and "0.50 USD" in said and KEY not in said


def test_checks_run_live_and_the_key_stays_here(api: StandIn, tmp_path: Path) -> None:
    live = go_live({"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": api.url}, ask=lambda question: "y")
    target = Target.parse(str(FOLDER / "exercise_2_19_2_solution.py"))
    with Bench(live=live) as bench:
        judged = judge_target(bench, target, contract("19.2.2"))
        status = {verdict.check.id: verdict.status for verdict in judged.verdicts}
        app = bench.open(target)
        try:
            assert app.chat().answered
        finally:
            app.close()
    assert "missed" not in status.values() and status["too-long"] == status["blank"] == "met"
    assert status["before-the-model"] == "not checked"
    assert 0 < live.calls <= 100


def test_nothing_in_the_repository_goes_live_by_itself() -> None:
    for path in (ROOT / ".ci" / "run", ROOT / "tests" / "kit" / "everything.py"):
        text = path.read_text(encoding="utf-8")
        assert "--live" not in text and "LIVE" not in text
