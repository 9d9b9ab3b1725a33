"""19.1.1: the agent alone and over HTTP, the command, the frozen list, and what the Dockerfile promises."""

from __future__ import annotations

import asyncio
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, version

import pytest
from exercise_1_19_1_solution import (
    FACTS,
    TOPIC_CHARS,
    as_items,
    build_research_graph,
    create_app,
    investigate,
    main,
    report,
)

from shared.agent import ModelError
from shared.config import CHAPTER, ROOT, Settings
from shared.offline import Fault, OfflineModel
from tests.kit import freezing
from tests.kit.dockerfile import read
from tests.kit.files import in_context
from tests.kit.serving import SETTINGS, client_of, serving

TOPIC = {"message": "tides"}
DOCKERFILES = ("exercise_1_Dockerfile", "exercise_2_Dockerfile")
OFFLINE = Settings(openai_api_key="offline", offline=True)


# ---------------------------------------------------------------- the agent


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. a\n2. b\n3. c", ["a", "b", "c"]),
        ("1) a b\n\n2) c", ["a b", "c"]),
        ("Here are facts: 1. a. 2. b 2.5 times", ["a.", "b 2.5 times"]),
        ("- a\n* b-c\n-d", ["a", "b-c", "-d"]),
        ("  - a\n  - b", ["a", "b"]),
        ("a 3.5 b", ["a 3.5 b"]),
        ("in 1999. 12 more", ["in 1999. 12 more"]),
        ("10. a\n11. b", ["a", "b"]),
        ("prose only", ["prose only"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_edge_lists_are_read_as_models_write_them(text: str, items: list[str]) -> None:
    assert as_items(text) == items


@pytest.mark.anyio
async def test_the_second_node_sees_the_facts_of_the_first_and_nothing_else() -> None:
    asked: list[tuple[str, str]] = []

    async def think(task: str, material: str) -> str:
        asked.append((task, material))
        return "1. wet\n2. twice a day\n3. salty" if len(asked) == 1 else "Water comes and goes."

    state = await build_research_graph(think, facts=2).ainvoke({"topic": "tides"})
    assert state == {"topic": "tides", "facts": ["wet", "twice a day"], "summary": "Water comes and goes."}
    assert [material for _, material in asked] == ["2 facts about tides", "wet\ntwice a day"]
    assert asked[0][0].startswith("List 2 facts")
    assert asked[1][0].startswith("Summarize")


def test_the_defaults() -> None:
    assert (FACTS, TOPIC_CHARS) == (3, 200)


def test_a_report_is_numbered_from_one() -> None:
    assert report({"topic": "t", "facts": ["a", "b"], "summary": "s"}) == "1. a\n2. b\n\ns"


@pytest.mark.anyio
async def test_failure_a_fault_of_either_call_is_a_model_error() -> None:
    for faults in ((Fault(status=500),), (Fault(), Fault(garbage=True))):
        model = OfflineModel()
        model.next(*faults)
        async with serving(create_app(SETTINGS, client=client_of(model))) as http:
            answer = await http.post("/v1/chat", json=TOPIC)
            assert answer.status_code == 502
            assert (await http.post("/v1/chat", json=TOPIC)).status_code == 200


# ---------------------------------------------------------------- over HTTP


@pytest.mark.anyio
async def test_it_answers_with_facts_and_a_summary_in_two_calls() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        answer = await http.post("/v1/chat", json={**TOPIC, "conversation_id": "c-1"})
    assert answer.status_code == 200
    assert answer.json()["conversation_id"] == "c-1"
    assert answer.json()["response"].startswith(
        "1. tides has a history.\n2. tides has a cost.\n3. tides has alternatives.\n\n[stand-in]"
    )
    assert [call.body["messages"][0]["role"] for call in model.calls] == ["system", "system"]
    assert {call.body["model"] for call in model.calls} == {"gpt-4o-mini"}
    assert "tides has a cost." in model.calls[1].body["messages"][1]["content"]


@pytest.mark.anyio
async def test_abuse_nothing_without_a_key_and_nothing_empty() -> None:
    model = OfflineModel()
    async with serving(create_app(SETTINGS, client=client_of(model))) as http:
        assert (await http.post("/v1/chat", json=TOPIC, headers={"X-API-Key": "wrong"})).status_code == 401
        assert (await http.post("/v1/chat", json={"message": ""})).status_code == 422
        ids = {(await http.post("/v1/chat", json=TOPIC)).json()["conversation_id"] for _ in range(2)}
        assert (await http.get("/health")).json() == {"status": "healthy"}
    assert len(ids) == 2
    assert len(model.calls) == 4


# ---------------------------------------------------------------- the command


def test_the_script_looks_into_a_topic(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solar", "power"]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.splitlines()[0].startswith("Exercise 1 (19.1): ")
    assert "model: the stand-in" in out.splitlines()[1]
    assert "\nsolar power\n1. solar power has a history.\n" in out
    assert main([]) == 0
    assert "3. renewable energy has alternatives.\n" in capsys.readouterr().out


@pytest.mark.parametrize("topic", ["", "   ", "x" * 201])
def test_edge_a_topic_has_1_to_200_characters(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([topic])
    assert stopped.value.code == 2
    assert "1 to 200 characters" in capsys.readouterr().err


def test_failure_a_server_without_a_key_refuses_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--serve"])
    assert stopped.value.code == 2
    assert "OFFLINE=1" in capsys.readouterr().err


def test_failure_a_model_that_is_down_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(topic: str, settings: Settings) -> str:
        raise ModelError("model_unavailable")

    monkeypatch.setattr(sys.modules["exercise_1_19_1_solution"], "investigate", fails)
    with pytest.raises(SystemExit) as stopped:
        main(["tides"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "the model did not answer (model_unavailable)\n"


def test_it_serves_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[object] = []
    monkeypatch.setattr("shared.demo.serve", lambda app, settings: served.append(settings))
    monkeypatch.setenv("OFFLINE", "1")
    assert main(["--serve"]) == 0
    assert len(served) == 1


def test_one_topic_in_this_process() -> None:
    assert asyncio.run(investigate("tides", OFFLINE)).startswith("1. tides has a history.")


# ---------------------------------------------------------------- the frozen list


def frozen() -> dict[str, str]:
    return freezing.pins(freezing.FROZEN.read_text(encoding="utf-8"))


def test_the_frozen_list_holds_the_root_pins_of_what_the_image_needs() -> None:
    ours = freezing.pins("\n".join(freezing.runtime_pins()))
    assert len(ours) == 8
    assert {name: frozen().get(name) for name in ours} == ours
    assert not {"pytest", "numpy", "pip"} & set(frozen())
    assert freezing.FROZEN.read_text(encoding="utf-8").startswith(freezing.HEADER)


def test_the_frozen_list_is_whole_and_nothing_in_it_is_left_over() -> None:
    """Follow what every package says that it needs; under the book's pins other versions say other things."""
    wanted, seen = list(freezing.pins("\n".join(freezing.runtime_pins()))), set()
    todays = all(version(name) == frozen()[name] for name in wanted)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            needs = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        for need in needs:
            if applies(need):
                wanted.append(re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", need)[0]).lower())  # type: ignore[index]
    if todays:
        assert seen == set(frozen())
    else:
        assert {"starlette", "httpcore", "anyio", "langgraph-checkpoint"} <= seen & set(frozen())


def applies(need: str) -> bool:
    """Tell whether a requirement holds on Linux with the image's Python, without extras."""
    from packaging.requirements import Requirement

    marker = Requirement(need).marker
    image = {"python_version": "3.13", "python_full_version": "3.13.12", "sys_platform": "linux", "extra": ""}
    image |= {"platform_system": "Linux", "os_name": "posix", "platform_python_implementation": "CPython"}
    return marker is None or marker.evaluate(dict(image))


# ---------------------------------------------------------------- the files around it


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_keeps_its_promises(name: str) -> None:
    final = read(CHAPTER / name).final()
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", final.image())
    assert re.fullmatch(r"\d{4,}:\d{4,}", final.user)
    for instruction in (final.entrypoint, final.cmd):
        assert instruction
        assert instruction.words(), "the exec form: a shell would not hand SIGTERM on"
    assert final.healthcheck
    assert (final.env["PORT"], final.env["HOST"], final.ports) == ("8000", "0.0.0.0", [8000])
    assert "PYTHONDONTWRITEBYTECODE" not in final.env
    assert not [c for c in final.copies if "." in c.sources], "only named files"


def test_all_images_start_from_the_same_base() -> None:
    naive = ROOT / "tests" / "kit" / "naive_Dockerfile"
    bases = {stage.base for path in (*(CHAPTER / n for n in DOCKERFILES), naive) for stage in read(path).stages}
    assert len(bases) == 1


@pytest.mark.parametrize("name", [".env", ".env.local", "shared/.env", "part_5_production/chapter_19_deployment/.env"])
def test_a_key_is_neither_in_git_nor_in_the_build_context(name: str) -> None:
    assert not in_context((ROOT / ".dockerignore").read_text(encoding="utf-8"), name)


def test_what_the_image_needs_is_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for needed in ("shared/agent.py", "part_5_production/chapter_19_deployment/exercise_1_requirements.txt"):
        assert in_context(ignored, needed)
    for stray in (".git/config", "tests/chapter.py", "README.md", "shared/__pycache__/agent.cpython-313.pyc"):
        assert not in_context(ignored, stray)
