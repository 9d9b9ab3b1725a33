"""Exercise 19.3.2: what is read from where, what is refused in which words, and that no word is a secret."""

import dataclasses
import json
import logging
import traceback
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from exercise_2_19_3_solution import (
    Config,
    ConfigurationError,
    Given,
    create_app,
    env_example,
    main,
    misspelt,
    nearest_dotenv,
    one_slip,
    read_dotenv,
    table,
)
from fastapi.encoders import jsonable_encoder
from hypothesis import given
from hypothesis import strategies as st

from shared.offline import OfflineModel
from tests.chapter import FOLDER, ROOT
from tests.kit.serving import described

KEY = "sk-this-is-secret"
PLACEHOLDER = "sk-your-openai-api-key-here"
STRONG = "a-long-random-key"
SET = {"OPENAI_API_KEY": KEY}
NAMES = [each.name.upper() for each in dataclasses.fields(Config)]


def problems(env: dict[str, str], dotenv_file: Path | None = None) -> list[str]:
    """Return what is said about an environment; nothing about a good one."""
    try:
        Config.from_environment(env, dotenv_file=dotenv_file)
    except ConfigurationError as error:
        return error.problems
    return []


def dotenv(folder: Path, text: str | bytes) -> Path:
    """Write a .env file."""
    file = folder / ".env"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# ---------------------------------------------------------------- what is read


def test_one_variable_is_enough_and_the_rest_has_defaults() -> None:
    config = Config.from_environment(SET)
    assert config.openai_api_key.get_secret_value() == KEY
    assert dataclasses.astuple(config)[1:4] == (None, "gpt-4o-mini", False)
    assert config.api_keys == ("dev-key-change-in-production",)
    assert (config.environment, config.debug, config.host, config.port) == ("development", False, "127.0.0.1", 8000)


def test_every_setting_can_be_given() -> None:
    env = {
        "OPENAI_API_KEY": f"  {KEY}\r\n",
        "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1",
        "OPENAI_MODEL": "gpt-4o",
        "OFFLINE": "no",
        "API_KEY": f" {STRONG}-1 , {STRONG}-2,",
        "ENVIRONMENT": "Production",
        "DEBUG": "0",
        "HOST": "0.0.0.0",
        "PORT": "80",
    }
    assert set(env) == set(NAMES)
    config = Config.from_environment(env)
    assert config.openai_api_key.get_secret_value() == KEY
    assert config.openai_base_url == "http://127.0.0.1:11434/v1"
    assert config.openai_model == "gpt-4o"
    assert config.api_keys == (f"{STRONG}-1", f"{STRONG}-2")
    assert (config.environment, config.host, config.port) == ("production", "0.0.0.0", 80)


def test_what_is_read_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Given("a", "b").text = "c"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config.from_environment(SET).port = 1  # type: ignore[misc]


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "Yes", "on"])
def test_words_for_yes(value: str) -> None:
    assert Config.from_environment({**SET, "DEBUG": value}).debug is True


@pytest.mark.parametrize("value", ["0", "false", "No", "OFF", "", "  "])
def test_words_for_no_and_blank_is_the_default(value: str) -> None:
    assert Config.from_environment({**SET, "DEBUG": value}).debug is False


@pytest.mark.parametrize("value", ["1", "8000", "65535"])
def test_ports_at_the_edges(value: str) -> None:
    assert Config.from_environment({**SET, "PORT": value}).port == int(value)


@pytest.mark.parametrize("offline", ["1", "true"])
@pytest.mark.parametrize("key", ["", PLACEHOLDER, KEY])
def test_the_stand_in_needs_no_key(offline: str, key: str) -> None:
    config = Config.from_environment({"OFFLINE": offline, "OPENAI_API_KEY": key})
    assert config.offline
    assert config.openai_api_key.get_secret_value() == "offline"


# ---------------------------------------------------------------- .env


def test_a_dotenv_file_as_people_write_them(tmp_path: Path) -> None:
    text = (
        b"\xef\xbb\xbf# BOM and CRLF\r\n\r\n"
        b"OPENAI_API_KEY=sk-this-is-secret # my key\r\n"
        b"export OPENAI_MODEL='gpt-4o'   # quoted\r\n"
        b'API_KEY="a-long-random-key"\r\n'
        b"HOST = 0.0.0.0\r\n"
        b"PORT= # none\r\n"
        b"DEBUG=\r\n"
        b"LANGSMITH_PROJECT=other tools may have lines here\r\n"
    )
    config = Config.from_environment({}, dotenv_file=dotenv(tmp_path, text))
    assert config.openai_api_key.get_secret_value() == KEY
    assert (config.openai_model, config.host, config.port, config.debug) == ("gpt-4o", "0.0.0.0", 8000, False)
    assert config.api_keys == (STRONG,)


def test_dollar_signs_in_a_value_stay_what_they_are(tmp_path: Path) -> None:
    file = dotenv(tmp_path, "OPENAI_API_KEY=sk-a${HOME}b$c\n")
    assert Config.from_environment({}, dotenv_file=file).openai_api_key.get_secret_value() == "sk-a${HOME}b$c"


def test_the_environment_wins_even_when_it_is_blank(tmp_path: Path) -> None:
    file = dotenv(tmp_path, "OPENAI_API_KEY=sk-from-file\nPORT=9000\nOPENAI_MODEL=gpt-4o\n")
    config = Config.from_environment({"OPENAI_API_KEY": KEY, "PORT": ""}, dotenv_file=file)
    assert (config.openai_api_key.get_secret_value(), config.port, config.openai_model) == (KEY, 8000, "gpt-4o")
    assert problems({"OPENAI_API_KEY": " "}, file)[0].startswith("OPENAI_API_KEY (blank in the environment) is missing")


def test_a_problem_says_in_which_line_it_stands(tmp_path: Path) -> None:
    file = dotenv(tmp_path, "# one\n\nOPENAI_API_KEY=sk-your-openai-api-key-here\n\n\n  PORT=0\n")
    first, second = problems({}, file)
    assert first.startswith("OPENAI_API_KEY (.env, line 3) is still the placeholder: put your key into .env")
    assert second == "PORT (.env, line 6) must be a whole number from 1 to 65535"


def test_lines_that_are_no_settings_are_named_by_number_and_not_shown(tmp_path: Path) -> None:
    file = dotenv(tmp_path, f"{KEY}\nAPI_KEY: {STRONG}\nHOST='0.0.0.0\nPORT=1\n")
    found = problems(SET, file)
    assert found == [f".env, line {n} is not NAME=value, or a quotation mark is not closed" for n in (1, 2, 3)]


def test_a_file_in_another_encoding_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    found = problems(SET, dotenv(tmp_path, "OPENAI_API_KEY=x\n".encode("utf-16")))
    assert found == [".env is not UTF-8 text: save it as UTF-8 (Windows PowerShell writes UTF-16)"]


def test_a_file_that_cannot_be_read_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    assert problems(SET, tmp_path) == [f"{tmp_path.name} cannot be read: Is a directory"]


def test_a_good_file_gives_names_values_and_places(tmp_path: Path) -> None:
    found, wrong = read_dotenv(dotenv(tmp_path, "A=1\n\nB=two words\n"))
    assert found == {"A": Given("1", ".env, line 1"), "B": Given("two words", ".env, line 3")}
    assert wrong == []


def test_the_nearest_dotenv_is_the_one_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert nearest_dotenv() != tmp_path / ".env"
    file = dotenv(tmp_path, f"OPENAI_API_KEY={KEY}\n")
    assert nearest_dotenv() == file
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert Config.from_environment().openai_api_key.get_secret_value() == KEY
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert Config.from_environment().openai_api_key.get_secret_value() == "sk-other"


def test_with_an_environment_of_ones_own_no_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dotenv(tmp_path, f"OPENAI_API_KEY={KEY}\n")
    assert problems({})[0].startswith("OPENAI_API_KEY (not set) is missing")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("PORT", "abc", "must be a whole number from 1 to 65535"),
        ("PORT", "0", "must be a whole number"),
        ("PORT", "65536", "must be a whole number"),
        ("PORT", "70000", "must be a whole number"),
        ("PORT", "8000.0", "must be a whole number"),
        ("PORT", "+80", "must be a whole number"),
        ("PORT", "\u0664\u0662", "must be a whole number"),
        ("PORT", "9" * 5000, "must be a whole number"),
        ("PORT", "000080", "must be a whole number"),
        ("DEBUG", "maybe", "must be 1 or 0"),
        ("OFFLINE", "2", "must be 1 or 0"),
        ("ENVIRONMENT", "prod", "must be development or production"),
        ("HOST", "0.0.0.0 # all", "holds a space"),
        ("OPENAI_MODEL", '"gpt-4o"', "holds a space, a quotation mark"),
        ("OPENAI_API_KEY", f'"{KEY}"', "holds a space, a quotation mark"),
        ("OPENAI_API_KEY", f"'{KEY}'", "holds a space, a quotation mark"),
        ("OPENAI_API_KEY", f"{KEY} # mine", "holds a space"),
        ("OPENAI_API_KEY", f"{KEY}\nX", "an odd character"),
        ("OPENAI_API_KEY", f"\u201c{KEY}\u201d", "an odd character"),
        ("OPENAI_API_KEY", PLACEHOLDER, "is still the placeholder"),
        ("OPENAI_API_KEY", "", "is missing: put your key into .env or the platform's environment, or set OFFLINE=1"),
        ("API_KEY", " , ,", "holds no key"),
        ("API_KEY", "good-key,b\u00e4d-key", "an odd character"),
        ("OPENAI_BASE_URL", "localhost:11434", "must be an address like https://host/path"),
        ("OPENAI_BASE_URL", "ftp://host", "must be an address"),
        ("OPENAI_BASE_URL", "https://", "must be an address"),
        ("OPENAI_BASE_URL", "https://me:secret@host", "without a user name or a password"),
        ("OPENAI_BASE_URL", "http://[::1", "must be an address"),
        ("OPENAI_BASE_URL", "http://host:0", "must be an address"),
        ("OPENAI_BASE_URL", "http://host:99999", "must be an address"),
        ("OPENAI_BASE_URL", "http://host/ path", "must be an address"),
    ],
)
def test_a_wrong_value_is_one_problem_that_names_it_and_does_not_show_it(variable: str, value: str, words: str) -> None:
    found = problems({**SET, variable: value})
    assert len(found) == 1
    assert found[0].startswith(f"{variable} (")
    assert words in found[0]
    assert len(value) < 9 or value not in found[0]


def test_all_problems_come_at_once_the_missing_key_first() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Config.from_environment({"PORT": "x", "DEBUG": "x", "ENVIRONMENT": "x", "HOTS": "h"})
    found = caught.value.problems
    assert [line.split(" ")[0] for line in found] == ["OPENAI_API_KEY", "ENVIRONMENT", "DEBUG", "PORT", "HOTS"]
    assert str(caught.value) == "\n  - ".join(["cannot start: 5 problems with the configuration", *found])
    assert str(ConfigurationError(["one"])) == "cannot start: 1 problem with the configuration\n  - one"


PRODUCTION = {**SET, "ENVIRONMENT": "production", "API_KEY": STRONG}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"API_KEY": ""}, "API_KEY is the default"),
        ({"API_KEY": "dev-key-change-in-production"}, "API_KEY is the default"),
        ({"API_KEY": f"{STRONG},dev-key-change-in-production"}, "API_KEY is the default"),
        ({"API_KEY": "a" * 15}, "API_KEY holds a key shorter than 16 characters"),
        ({"API_KEY": f"{STRONG},short"}, "API_KEY holds a key shorter than 16 characters"),
        ({"DEBUG": "1"}, "DEBUG=1 is refused in production"),
        ({"OFFLINE": "1"}, "OFFLINE=1 is refused in production"),
    ],
)
def test_what_is_for_development_is_refused_in_production(change: dict[str, str], words: str) -> None:
    (found,) = problems(PRODUCTION | change)
    assert found.startswith(words)
    assert problems(SET | change) == []


def test_a_key_that_is_wrong_is_not_called_the_default_as_well() -> None:
    (found,) = problems(PRODUCTION | {"API_KEY": "a b"})
    assert found.startswith("API_KEY (environment) holds a space")
    two = problems(PRODUCTION | {"OFFLINE": "x", "DEBUG": "x"})
    assert [line.partition(" ")[0] for line in two] == ["OFFLINE", "DEBUG"]


def test_production_accepts_keys_of_sixteen_characters() -> None:
    assert problems(PRODUCTION) == problems(PRODUCTION | {"API_KEY": "b" * 16}) == []


# ---------------------------------------------------------------- misspelt names


@pytest.mark.parametrize(
    ("stranger", "meant"),
    [
        ("OPENAI_API_KYE", "OPENAI_API_KEY"),
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
        ("OPEN_AI_API_KEY", "OPENAI_API_KEY"),
        ("openai_api_key", "OPENAI_API_KEY"),
        ("OPENAI-API-KEY", "OPENAI_API_KEY"),
        ("OPENAI_API_KEYS", "OPENAI_API_KEY"),
        ("OPENAI_API_JEY", "OPENAI_API_KEY"),
        ("PROT", "PORT"),
        ("port", "PORT"),
        ("ENVIROMENT", "ENVIRONMENT"),
        ("API_KEYS", "API_KEY"),
        ("OFLINE", "OFFLINE"),
    ],
)
def test_a_name_with_one_slip_is_refused_with_the_right_one(stranger: str, meant: str) -> None:
    found = problems({**({} if meant == "OPENAI_API_KEY" else SET), stranger: "1"})
    assert f"{stranger} (environment) is not a setting: did you mean {meant}?" in found
    assert problems({**SET, meant: {"PORT": "80", "ENVIRONMENT": "production", "OFFLINE": "0"}.get(meant, STRONG),
                     "API_KEY": STRONG, stranger: "1"}) == []  # fmt: skip


@pytest.mark.parametrize(
    "stranger",
    ["HOME", "HOSTNAME", "PATH", "PORT_8000_TCP", "API_PORT", "ENVIRONMENT_NAME", "OPENAI_ORG_ID", "XAI_API_KEY", "PR"],
)
def test_names_of_other_programs_are_left_alone(stranger: str) -> None:
    assert problems({**SET, stranger: "x"}) == []


def test_a_misspelt_name_in_the_file_says_its_line(tmp_path: Path) -> None:
    file = dotenv(tmp_path, "OPENAI_API_KEY=sk-x\nDEBGU=1\n")
    assert problems({}, file) == ["DEBGU (.env, line 2) is not a setting: did you mean DEBUG?"]
    assert misspelt({"A": Given("", ""), "PROT": Given("", "here")}, ["A", "PORT", "DEBUG"]) == [
        "PROT (here) is not a setting: did you mean PORT?"
    ]


letters = st.text("ABCDE", min_size=3, max_size=8)


@given(letters, st.data())
def test_one_slip_of_every_kind_is_one_slip(word: str, data: Any) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from("ABCDE"))
    swapped = word[:at] + word[at : at + 2][::-1] + word[at + 2 :]
    for slip in (
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
        word[:at] + letter + word[at + 1 :],
        swapped,
    ):
        assert one_slip(word, slip)
        assert one_slip(slip, word)


@given(letters, letters)
def test_what_is_far_apart_is_no_slip(left: str, right: str) -> None:
    if abs(len(left) - len(right)) > 1 or len(set(left) ^ set(right)) > 2:
        assert not one_slip(left, right)


# ---------------------------------------------------------------- secrets


@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "OPENAI_API_KYE", "PROT", "SOMETHING"]), st.text(min_size=6).map(lambda t: f"zq{t}qz")
    )
)
def test_no_complaint_ever_shows_a_value(env: dict[str, str]) -> None:
    try:
        config = Config.from_environment(env)
    except ConfigurationError as error:
        told = "".join(traceback.format_exception(error))
        assert not any(value in told for value in env.values())
        assert "zq" not in told
    else:
        shown = repr(dataclasses.replace(config, openai_model="", host=""))  # these two may be alike
        assert "zq" not in shown


def test_secrets_are_in_no_repr_str_log_or_json(caplog: pytest.LogCaptureFixture) -> None:
    config = Config.from_environment({**SET, "API_KEY": STRONG})
    logging.getLogger("test").warning("%s %r %s", config, config, vars(config))
    shown = [str(config), repr(config), f"{config}", caplog.text, json.dumps(jsonable_encoder(config))]
    shown += [json.dumps(dataclasses.asdict(config), default=str), repr(Given(KEY, "here"))]
    assert "gpt-4o-mini" in caplog.text
    assert not any(secret in text for text in shown for secret in (KEY, STRONG))


# ---------------------------------------------------------------- the app and the script


def test_without_a_key_there_is_no_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        create_app()


@pytest.mark.anyio
@pytest.mark.parametrize("debug", ["0", "1"])
async def test_the_app_runs_on_its_configuration_and_shows_it_without_secrets(debug: str) -> None:
    config = Config.from_environment({**SET, "API_KEY": STRONG, "OPENAI_MODEL": "gpt-4o", "DEBUG": debug})
    model = OfflineModel()
    transport: Any = httpx.AsyncClient(transport=httpx.ASGITransport(model))
    client = openai.AsyncOpenAI(api_key="k", base_url="http://model/v1", http_client=transport, max_retries=0)
    app = create_app(config, client=client)
    assert app.debug is (debug == "1")
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://t") as http:
        http.headers["X-API-Key"] = STRONG
        answer = await http.post("/v1/chat", json={"message": "What is 6 * 7?"})
        assert "42" in answer.json()["response"]
        again = await http.post(
            "/v1/chat", json={"message": "and?", "conversation_id": answer.json()["conversation_id"]}
        )
        assert again.json()["conversation_id"] == answer.json()["conversation_id"]
        assert len(model.calls[-1].body["messages"]) == 4
        assert model.calls[-1].body["model"] == "gpt-4o"
        shown = (await http.get("/v1/config")).json()
        assert shown["openai_model"] == "gpt-4o"
        assert shown["openai_api_key"] == shown["api_key"] == "**********"
        assert (await http.get("/v1/config", headers={"X-API-Key": "wrong"})).status_code == 401
    await client.close()


def test_every_answer_there_can_be_is_described() -> None:
    assert described(create_app(Config.from_environment({"OFFLINE": "1"}))) == {
        "get /health": {"200"},
        "post /v1/chat": {"200", "400", "401", "422", "502", "503", "504"},
        "get /v1/config": {"200", "401"},
    }


def test_the_command_prints_what_the_repositorys_example_file_begins_with(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env-example"]) == 0
    assert capsys.readouterr().out == env_example()
    assert (ROOT / ".env.example").read_text(encoding="utf-8").startswith(env_example())
    assert main(["--table"]) == 0
    assert capsys.readouterr().out == table()


def test_the_table_stands_in_the_chapters_readme() -> None:
    readme = FOLDER / "README.md"
    if not readme.exists() or "| Variable | Default |" not in readme.read_text(encoding="utf-8"):
        pytest.skip("the chapter's README has no table of settings yet")
    assert table() in readme.read_text(encoding="utf-8")


def test_the_example_file_lists_every_setting_and_starts_once_a_key_is_in(tmp_path: Path) -> None:
    lines = env_example().splitlines()
    assert [line.lstrip("#").partition("=")[0] for line in lines if "=" in line and " " not in line] == NAMES
    assert [line for line in lines if line and not line.startswith("#")] == [
        "OPENAI_API_KEY=sk-your-openai-api-key-here"
    ]
    filled = env_example().replace(PLACEHOLDER, KEY)
    assert problems({}, dotenv(tmp_path, filled)) == []
    everything = "\n".join(line.removeprefix("#") for line in filled.splitlines() if not line.startswith("# "))
    assert problems({}, dotenv(tmp_path, everything)) == []


def test_the_table_lists_every_setting_and_no_secret() -> None:
    rows = table().splitlines()
    assert rows[:2] == ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    assert [row.split("`")[1] for row in rows[2:]] == NAMES
    assert rows[2].startswith("| `OPENAI_API_KEY` | required | Your key:")
    assert "| `PORT` | `8000` |" in table()
    assert "| `API_KEY` | a key for development |" in table()


def test_serving_with_a_wrong_configuration_ends_with_2_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(SystemExit) as caught:
        main(["--serve"])
    assert caught.value.code == 2
    assert "OPENAI_API_KEY (blank in the environment) is missing" in capsys.readouterr().err


def test_the_script_shows_a_right_and_two_wrong_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert '"openai_api_key":"**********"' in out
    assert "cannot start: 4 problems with the configuration" in out
    assert "did you mean PORT?" in out
