"""Exercise 19.2.1: the index against a brute-force list, the checkpoints under a real graph, the app over HTTP."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from exercise_1_19_2_solution import (
    ConversationIndex,
    Conversations,
    UnknownConversation,
    create_app,
    keep_only,
    main,
    newest,
    shown,
)
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from shared.config import Settings
from shared.offline import Fault, OfflineModel
from tests.kit.serving import described

ALICE, BOB = {"X-API-Key": "key-a"}, {"X-API-Key": "key-b"}


# ---------------------------------------------------------------- the index

ids = st.sampled_from([f"c{n}" for n in range(12)])
steps = st.lists(st.tuples(st.sampled_from(["record", "remove"]), st.sampled_from(["ann", "ben"]), ids), max_size=60)


@given(steps, st.integers(1, 5), st.integers(1, 4), st.sampled_from(["asc", "desc"]))
def test_pages_put_together_are_the_list_that_a_plain_list_gives(
    steps: list[tuple[str, str, str]], cap: int, limit: int, order: Any
) -> None:
    now = 0
    index = ConversationIndex(max_per_owner=cap, clock=lambda: now)
    model: dict[str, dict[str, tuple[int, int]]] = {"ann": {}, "ben": {}}  # id -> (began, last turn)
    for step, owner, name in steps:
        now += 1
        mine = model[owner]
        if step == "remove":
            with contextlib.suppress(UnknownConversation) if name not in mine else contextlib.nullcontext():
                index.remove(owner, name)
            mine.pop(name, None)
            continue
        made_room = index.record(owner, name)
        mine[name] = (mine.get(name, (now, 0))[0], now)
        expected = min(mine, key=lambda key: mine[key][1]) if len(mine) > cap else None
        assert made_room == expected
        mine.pop(expected or "", None)
    for owner, mine in model.items():
        expected_ids = sorted(mine, key=lambda key: mine[key][0], reverse=order == "desc")
        assert walk(index, owner, limit, order) == expected_ids


def walk(index: ConversationIndex, owner: str, limit: int, order: Any = "desc") -> list[str]:
    seen: list[str] = []
    after, more = None, True
    while more:
        page = index.page(owner, limit=limit, after=after, order=order)
        assert len(page.ids) == limit or not page.has_more
        seen += page.ids
        after, more = (page.ids[-1] if page.ids else None), page.has_more
    return seen


@given(st.integers(1, 5), st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=12), st.booleans())
def test_nothing_is_shown_twice_or_skipped_while_conversations_come_and_go(
    limit: int, between: list[list[int]], newest_first: bool
) -> None:
    index = ConversationIndex()
    for n in range(15):
        index.record("ann", f"old{n}")
    untouched, after = {f"old{n}" for n in range(15)}, None
    seen: list[str] = []
    for number in range(100):
        page = index.page("ann", limit=limit, after=after, order="desc" if newest_first else "asc")
        seen += page.ids
        if not page.has_more:
            break
        after = page.ids[-1]
        for n in between[number] if number < len(between) else []:
            if n < 15:  # an old one goes, be it the very one that the next page starts after
                untouched.discard(f"old{n}")
                with contextlib.suppress(UnknownConversation):
                    index.remove("ann", f"old{n}")
            else:
                index.record("ann", f"new{number}-{n}")
    assert len(seen) == len(set(seen))
    assert untouched <= set(seen)


def test_an_owner_keeps_a_thousand_and_at_least_one() -> None:
    index = ConversationIndex()
    made_room = [index.record("ann", f"c{n}") for n in range(1002)]
    assert made_room == [None] * 1000 + ["c0", "c1"]
    with pytest.raises(ValueError, match="positive"):
        ConversationIndex(max_per_owner=0)
    assert ConversationIndex(max_per_owner=1).record("ann", "one") is None
    for frozen in (index.get("ann", "c2"), index.page("ann")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            frozen.id = "x"  # type: ignore[misc, union-attr]


def test_the_one_that_was_idle_for_longest_makes_room_and_not_the_oldest() -> None:
    now = iter(range(10))
    index = ConversationIndex(max_per_owner=2, clock=lambda: next(now))
    for name in ("old", "idle", "old"):
        assert index.record("ann", name) is None
    assert index.record("ann", "new") == "idle"
    assert index.page("ann").ids == ("new", "old")


def test_a_turn_in_an_old_conversation_moves_nothing_in_the_list() -> None:
    index = ConversationIndex()
    for name in ("one", "two", "three"):
        index.record("ann", name)
    index.record("ann", "one")
    assert index.page("ann").ids == ("three", "two", "one")


def test_an_id_that_comes_back_after_its_removal_is_a_new_conversation() -> None:
    index = ConversationIndex()
    for name in ("one", "two"):
        index.record("ann", name)
    index.remove("ann", "one")
    index.record("ann", "one")
    assert index.page("ann").ids == ("one", "two")
    assert index.page("ann", after="one").ids == ("two",)


def test_where_a_removed_conversation_stood_is_remembered_for_a_while_and_not_for_ever() -> None:
    index = ConversationIndex(max_per_owner=2)
    for n in range(5):
        index.record("ann", f"c{n}")  # c0, c1 and c2 made room
    assert (
        index.page("ann", after="c2", order="asc").ids == index.page("ann", after="c1", order="asc").ids == ("c3", "c4")
    )
    with pytest.raises(UnknownConversation):
        index.page("ann", after="c0")


@pytest.mark.parametrize("ask", [lambda i: i.get("ben", "one"), lambda i: i.remove("ben", "one")])
def test_what_belongs_to_another_is_unknown(ask: Any) -> None:
    index = ConversationIndex()
    index.record("ann", "one")
    with pytest.raises(UnknownConversation):
        ask(index)
    with pytest.raises(UnknownConversation):
        index.page("ben", after="one")
    assert index.page("ben").ids == ()
    assert index.page("ann").ids == ("one",)


# ---------------------------------------------------------------- the checkpoints


class Model:
    """A node that answers, waits or fails as it is told; the question comes in as a message, as in most graphs."""

    def __init__(self) -> None:
        self.fail = False
        self.hold: asyncio.Event | None = None

    async def __call__(self, state: MessagesState) -> dict[str, Any]:
        if self.hold:
            await self.hold.wait()
        if self.fail:
            raise RuntimeError("no answer")
        await asyncio.sleep(0)
        return {"messages": [AIMessage(f"answer {len(state['messages'])}")]}


class Talk:
    """A graph over the saver, and the conversations around it."""

    def __init__(self, durability: Any = "async") -> None:
        self.model, self.conversations, self.durability = Model(), Conversations(), durability
        self.saver = InMemorySaver()
        graph = StateGraph(MessagesState).add_node("model", self.model).add_edge(START, "model")
        self.graph = graph.compile(checkpointer=self.saver)

    async def say(self, text: str, owner: str = "ann", conversation_id: str = "c") -> None:
        async with self.conversations.turn(self.saver, owner, conversation_id) as thread_id:
            config: Any = {"configurable": {"thread_id": thread_id}}
            await self.graph.ainvoke({"messages": [HumanMessage(text)]}, config, durability=self.durability)

    async def said(self, owner: str = "ann", conversation_id: str = "c") -> list[str]:
        config: Any = {"configurable": {"thread_id": self.conversations.thread_id(owner, conversation_id)}}
        state = await self.graph.aget_state(config)
        return [str(message.content) for message in state.values.get("messages", [])]


@pytest.fixture(params=["sync", "async", "exit"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(request.param)


@pytest.mark.anyio
async def test_five_turns_at_once_keep_all_ten_messages_in_order(talk: Talk) -> None:
    await asyncio.gather(*(talk.say(f"question {n}") for n in range(5)))
    said = await talk.said()
    assert sorted(said[::2]) == [f"question {n}" for n in range(5)]
    assert said[1::2] == [f"answer {n}" for n in (1, 3, 5, 7, 9)]


@pytest.mark.anyio
async def test_a_turn_that_fails_never_happened(talk: Talk) -> None:
    talk.model.fail = True
    with pytest.raises(RuntimeError):
        await talk.say("first")
    assert await talk.said() == []
    assert talk.conversations.index.page("ann").ids == ()
    talk.model.fail = False
    await talk.say("second")
    talk.model.fail = True
    with pytest.raises(RuntimeError):
        await talk.say("third")
    assert await talk.said() == ["second", "answer 1"]
    talk.model.fail = False
    await talk.say("fourth")
    assert await talk.said() == ["second", "answer 1", "fourth", "answer 3"]


@pytest.mark.anyio
async def test_a_turn_that_is_cancelled_never_happened(talk: Talk) -> None:
    await talk.say("first")
    talk.model.hold = asyncio.Event()
    turn = asyncio.create_task(talk.say("second"))
    for _ in range(20):
        await asyncio.sleep(0)
    if talk.durability == "exit":  # as `ask` has it: who reads meanwhile sees what was finished
        assert await talk.said() == ["first", "answer 1"]
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    talk.model.hold = None
    await talk.say("third")
    assert await talk.said() == ["first", "answer 1", "third", "answer 3"]


def held(saver: InMemorySaver) -> int:
    """Return the bytes of all that a saver holds; checkpoints, values and pending writes."""
    saved = [*saver.blobs.values()]
    saved += [
        part for ns in saver.storage.values() for all_ in ns.values() for one in all_.values() for part in one[:2]
    ]
    saved += [write[2] for writes in saver.writes.values() for write in writes.values()]
    return sum(len(data) for _, data in saved)


@pytest.mark.anyio
async def test_memory_grows_with_the_messages_and_not_with_their_square(talk: Talk) -> None:
    sizes = {}
    for turn in range(1, 81):
        await talk.say("q" * 80)
        sizes[turn] = held(talk.saver)
        assert [len(checkpoints) for checkpoints in talk.saver.storage["ann/c"].values()] == [1]
        assert len(talk.saver.writes) <= 1
    assert sizes[80] - sizes[40] == pytest.approx(sizes[40], rel=0.1)
    assert len(talk.saver.blobs) < 6


@pytest.mark.anyio
async def test_what_a_failed_or_a_cancelled_turn_saved_is_dropped(talk: Talk) -> None:
    await talk.say("first")
    before = held(talk.saver)
    talk.model.fail = True
    for name in ("c", "new"):
        with pytest.raises(RuntimeError):
            await talk.say("second", conversation_id=name)
    talk.model.hold = asyncio.Event()
    for name in ("c", "new"):
        turn = asyncio.create_task(talk.say("third", conversation_id=name))
        await asyncio.sleep(0.001)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
    assert held(talk.saver) == before
    assert set(talk.saver.storage) == {"ann/c"}


@pytest.mark.anyio
async def test_deleting_forgets_both_halves_after_the_turns_that_were_there_first() -> None:
    talk = Talk()
    talk.model.hold = asyncio.Event()
    turn = asyncio.create_task(talk.say("first"))
    await asyncio.sleep(0)
    deletion = asyncio.create_task(talk.conversations.delete(talk.saver, "ann", "c"))
    talk.model.hold.set()
    await asyncio.gather(turn, deletion)
    assert await talk.said() == []
    assert talk.conversations.index.page("ann").ids == ()
    with pytest.raises(UnknownConversation):
        await talk.conversations.delete(talk.saver, "ann", "c")
    await talk.say("again")
    assert await talk.said() == ["again", "answer 1"]


@pytest.mark.anyio
async def test_a_conversation_that_makes_room_leaves_no_checkpoint() -> None:
    talk = Talk()
    talk.conversations.index.max_per_owner = 2
    for name in ("one", "two", "three"):
        await talk.say("hello", conversation_id=name)
    assert set(talk.saver.storage) == {key[0] for key in talk.saver.blobs} == {"ann/two", "ann/three"}
    assert not talk.conversations._locks


@pytest.mark.anyio
async def test_what_subgraphs_saved_goes_and_other_threads_stay() -> None:
    talk = Talk()
    await talk.say("hello", conversation_id="other")
    await talk.say("hello")
    others = {key for key in talk.saver.blobs if key[0] == "ann/other"}
    inner: Any = {"configurable": {"thread_id": "ann/c", "checkpoint_ns": "child:1"}}
    checkpoint: Any = {"id": "1", "channel_values": {"x": 1}, "channel_versions": {"x": 1}}
    talk.saver.put(inner, checkpoint, {}, {"x": 1})
    keep_only(talk.saver, "ann/c", newest(talk.saver, "ann/c"))
    assert not any(key[1] for key in talk.saver.blobs)
    assert await talk.said() == ["hello", "answer 1"]
    keep_only(talk.saver, "ann/c", "not there")
    keep_only(talk.saver, "never was", None)
    assert set(talk.saver.blobs) == others
    assert set(talk.saver.storage) == {"ann/other"}
    assert newest(talk.saver, "never was") is None


def test_system_and_tool_messages_are_not_shown() -> None:
    call = AIMessage("", tool_calls=[{"name": "add", "args": {}, "id": "1"}])
    said = [SystemMessage("secret"), HumanMessage("hi"), call, ToolMessage("2", tool_call_id="1"), AIMessage("two")]
    assert shown(said) == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "two"}]
    assert shown([AIMessage([{"type": "text", "text": "in parts"}])]) == [{"role": "assistant", "content": "in parts"}]


# ---------------------------------------------------------------- the app


class Service:
    """The app with two keys, over HTTP in this process, and its model."""

    def __init__(self, app: FastAPI, http: httpx.AsyncClient, model: OfflineModel) -> None:
        self.app, self.http, self.model = app, http, model

    async def chat(self, message: str, conversation_id: str | None = None, key: Any = ALICE) -> httpx.Response:
        body = {"message": message} | ({"conversation_id": conversation_id} if conversation_id else {})
        return await self.http.post("/v1/chat", json=body, headers=key)

    async def get(self, path: str, key: Any = ALICE) -> httpx.Response:
        return await self.http.get(f"/v1/conversations{path}", headers=key)


@contextlib.asynccontextmanager
async def open_service() -> AsyncIterator[Service]:
    model = OfflineModel()
    transport: Any = httpx.AsyncClient(transport=httpx.ASGITransport(model))
    client = openai.AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=transport, max_retries=0)
    settings = Settings(openai_api_key="k", api_keys=("key-a", "key-b"))
    app = create_app(settings, client=client)
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        yield Service(app, http, model)
    await client.close()


@pytest.mark.anyio
async def test_the_list_the_history_and_the_deletion_over_http() -> None:
    async with open_service() as service:
        first = (await service.chat("My name is Ada.")).json()["conversation_id"]
        await service.chat("What is my name?", first)
        second = (await service.chat("What is 6 * 7?")).json()["conversation_id"]
        listed = (await service.get("")).json()
        assert listed == {
            "conversations": [second, first],
            "first_id": second,
            "last_id": first,
            "has_more": False,
        }
        page = (await service.get("?limit=1&order=asc")).json()
        assert (page["conversations"], page["has_more"]) == ([first], True)
        assert (await service.get(f"?after={second}")).json()["conversations"] == [first]
        history = (await service.get(f"/{first}")).json()
        assert [message["role"] for message in history["messages"]] == ["user", "assistant"] * 2
        assert history["messages"][0]["content"] == "My name is Ada."
        assert "Ada" in history["messages"][3]["content"]
        gone = await service.http.delete(f"/v1/conversations/{first}", headers=ALICE)
        assert (gone.status_code, gone.content) == (204, b"")
        assert (await service.get(f"/{first}")).status_code == 404
        assert (await service.get("")).json()["conversations"] == [second]


@pytest.mark.anyio
async def test_a_foreign_and_an_unknown_conversation_get_the_same_bytes() -> None:
    async with open_service() as service:
        await service.chat("secret of alice", "private")
        answers = [
            await service.http.request(method, path, headers=BOB)
            for method in ("GET", "DELETE")
            for path in ("/v1/conversations/private", "/v1/conversations/never-was", "/v1/conversations/..%20$")
        ] + [await service.get("?after=private", BOB), await service.get("?after=never-was", BOB)]
        assert {answer.status_code for answer in answers} == {404}
        assert len({(answer.content, str(answer.headers)) for answer in answers}) == 1
        assert (await service.get("", BOB)).json()["conversations"] == []
        assert (await service.get("/private")).status_code == 200


@pytest.mark.anyio
async def test_the_same_id_under_another_key_is_another_conversation() -> None:
    async with open_service() as service:
        await service.chat("My name is Ada.", "intro")
        answer = await service.chat("What is my name?", "intro", BOB)
        assert "Ada" not in answer.text
        assert all("Ada" not in str(message) for message in service.model.calls[-1].body["messages"])
        assert len((await service.get("/intro")).json()["messages"]) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["", "/x"])
async def test_without_a_key_there_is_nothing_to_see(path: str) -> None:
    async with open_service() as service:
        assert (await service.get(path, {})).status_code == 401
        assert (await service.http.delete(f"/v1/conversations{path or '/x'}")).status_code == 401


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up"])
async def test_a_page_that_cannot_be_is_refused(query: str) -> None:
    async with open_service() as service:
        assert (await service.get(f"?{query}")).status_code == 422


@pytest.mark.anyio
@pytest.mark.parametrize("invented", ["a" * 65, "a/b", "a b", "", "\u00e9", "a\n"])
async def test_an_invented_id_is_limited_in_length_and_alphabet(invented: str) -> None:
    async with open_service() as service:
        answer = await service.http.post("/v1/chat", json={"message": "hi", "conversation_id": invented}, headers=ALICE)
        assert answer.status_code == 422
        assert (await service.get("")).json()["conversations"] == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content", [b'{"message": "\\ud800"}', b'{"message": NaN}', b"[" * 20_000, b"\xff", b"", b"null"]
)
async def test_bodies_that_no_json_can_repeat_are_the_clients_mistake(content: bytes) -> None:
    async with open_service() as service:
        headers = {**ALICE, "Content-Type": "application/json"}
        assert (await service.http.post("/v1/chat", content=content, headers=headers)).status_code in (400, 422)
        assert (await service.get("")).json()["conversations"] == []


@pytest.mark.anyio
async def test_a_model_that_fails_leaves_no_ghost_and_no_half_turn() -> None:
    async with open_service() as service:
        service.model.next(Fault(status=500))
        assert (await service.chat("hello", "ghost")).status_code == 502
        assert (await service.get("")).json()["conversations"] == []
        assert (await service.get("/ghost")).status_code == 404
        await service.chat("one", "real")
        service.model.next(Fault(garbage=True))
        assert (await service.chat("two", "real")).status_code == 502
        await service.chat("three", "real")
        said = [message["content"] for message in (await service.get("/real")).json()["messages"]]
        assert said[::2] == ["one", "three"]
        saver: Any = (await service.app.state.agent.graph()).checkpointer
        assert [thread_id.rpartition("/")[2] for thread_id in saver.storage] == ["real"]


@pytest.mark.anyio
async def test_five_requests_at_once_in_one_conversation_lose_nothing() -> None:
    async with open_service() as service:
        answers = await asyncio.gather(*(service.chat(f"number {n}", "busy") for n in range(5)))
        assert [answer.status_code for answer in answers] == [200] * 5
        messages = (await service.get("/busy")).json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 5
        assert sorted(message["content"] for message in messages[::2]) == [f"number {n}" for n in range(5)]
        assert all(q["content"] in a["content"] for q, a in zip(messages[::2], messages[1::2], strict=True))


@pytest.mark.anyio
async def test_five_new_conversations_between_two_pages_change_nothing_on_the_second() -> None:
    async with open_service() as service:
        for n in range(6):
            await service.chat("hi", f"old{n}")
        first = (await service.get("?limit=3")).json()
        for n in range(5):
            await service.chat("hi", f"new{n}")
        second = (await service.get(f"?limit=3&after={first['last_id']}")).json()
        assert first["conversations"] + second["conversations"] == [f"old{n}" for n in (5, 4, 3, 2, 1, 0)]
        assert (first["has_more"], second["has_more"]) == (True, False)


def test_every_answer_there_can_be_is_described() -> None:
    assert described(create_app(Settings(openai_api_key="offline", offline=True))) == {
        "get /health": {"200"},
        "post /v1/chat": {"200", "400", "401", "422", "502", "503", "504"},
        "get /v1/conversations": {"200", "401", "404", "422"},
        "get /v1/conversations/{conversation_id}": {"200", "401", "404", "422"},
        "delete /v1/conversations/{conversation_id}": {"204", "401", "404", "422"},
    }


def test_the_script_plays_its_transcript_in_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert "Your name is Ada" in out
    assert '404  {"detail":"no such conversation"}' in out
