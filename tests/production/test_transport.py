"""The SDK over aiohttp names every failure as it does over its own transport, and the service uses it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI
from pydantic import SecretStr

from production import transport
from production.app import create_app
from shared.agent import ModelError, complete
from shared.offline import Fault
from tests.kit.serving import serving
from tests.kit.standin import StandIn
from tests.production.servers import free_port
from tests.production.test_app import CHAT, config_of

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def client_at(url: str, timeout_s: float = 5.0) -> AsyncIterator[AsyncOpenAI]:
    client = transport.over_aiohttp(AsyncOpenAI(api_key="sk-test", base_url=url, timeout=timeout_s, max_retries=0))
    async with client:
        yield client


@pytest.mark.parametrize(
    ("fault", "code", "retry_after_s"),
    [
        (Fault(status=429, retry_after_s=7), "model_busy", 7),
        (Fault(status=500), "model_unavailable", None),
        (Fault(hang=True), "model_timeout", None),
        (Fault(garbage=True), "model_bad_answer", None),
        (Fault(cut=True), "model_unavailable", None),
    ],
)
async def test_a_fault_has_its_name(model: StandIn, fault: Fault, code: str, retry_after_s: int | None) -> None:
    pieces: list[str] = []
    model.next(fault)
    async with client_at(model.url, 0.2 if fault.hang else 5.0) as client:
        with pytest.raises(ModelError) as raised:
            await complete(client, "gpt-4o-mini", [{"role": "user", "content": "hello"}], pieces.append)
    assert (raised.value.code, raised.value.retry_after_s) == (code, retry_after_s)


async def test_a_model_that_is_not_there_or_hangs_up_is_unavailable_and_not_slow() -> None:
    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        for port in (free_port(), server.sockets[0].getsockname()[1]):
            async with client_at(f"http://127.0.0.1:{port}/v1") as client:
                with pytest.raises(ModelError) as raised:
                    await complete(client, "gpt-4o-mini", [])
            assert raised.value.code == "model_unavailable"


async def test_the_service_asks_over_aiohttp_and_closes_it(
    model: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, offline=False, openai_base_url=model.url, api_key=SecretStr("alice-key"))
    opened: list[AsyncOpenAI] = []
    real = transport.over_aiohttp

    def watched(made: AsyncOpenAI) -> AsyncOpenAI:
        opened.append(real(made))
        return opened[0]

    monkeypatch.setattr(transport, "over_aiohttp", watched)
    async with serving(create_app(config)) as http:
        answer = await http.post(CHAT, json={"message": "What is 6 * 7?", "conversation_id": "c"})
        assert answer.status_code == 200
        assert isinstance(opened[0]._client, transport.Client)
        assert not opened[0].is_closed()
    assert opened[0].is_closed()


def test_without_aiohttp_the_sdk_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def __init__(self, **_: object) -> None:
            raise RuntimeError("To use the aiohttp client you must have installed the package with the extra")

    monkeypatch.setattr(transport, "Client", Missing)
    client = AsyncOpenAI(api_key="sk-test")
    assert transport.over_aiohttp(client) is client
