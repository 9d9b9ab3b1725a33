"""Exercise 2 (19.3): read the configuration once, and refuse to start with a wrong one.

The book asks for a .env file locally, the platform's environment in production, sensible defaults, and an app that
fails fast with a clear message when OPENAI_API_KEY is missing. Notice:

* All problems come at once, each with the variable's name, what is wrong, where it stands and what to do. Never with
  its value: the message ends up in logs.
* A secret is a SecretStr: what prints, logs or serializes the Config shows asterisks.
* The environment wins over .env, even when it is blank there: then the message says so.
* A name that is one slip away from a setting's (PROT, OPENAI_APIKEY) is a problem. Ignoring it means running on a
  default that nobody chose.
* One class is the only list of settings. .env.example and the table of the documentation are printed from it.

Run it:    python exercise_2_19_3_solution.py             (--serve keeps it up; --env-example, --table print those)
Check it:  make check EX=19.3.2                           (MINE=your_file.py checks yours)

Limit: it knows whether a key looks like one, not whether OpenAI accepts it; the first request will tell.
"""

import argparse
import io
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import dotenv.parser
from fastapi import FastAPI, Request
from pydantic import SecretStr

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from shared import demo
from shared.agent import ask
from shared.api import Caller, ChatRequest, ChatResponse, base_app, may_answer, unless_gone
from shared.config import Settings

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["Config", "ConfigurationError", "Given", "about", "read_dotenv"]

DEFAULT_API_KEY = "dev-key-change-in-production"
SHORTEST_API_KEY = 16  # in production: 16 random characters are not guessed
OLLAMA = "http://127.0.0.1:11434/v1"
PLACEHOLDER = "sk-your-openai-api-key-here"  # as the book prints it
NEW_KEY = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class ConfigurationError(ValueError):
    """Everything that is wrong with the configuration; `problems` holds one line each, and no line a value."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  - ".join([f"cannot start: {count} with the configuration", *problems]))


@dataclass(frozen=True)
class Given:
    """A variable's text, and where it stands."""

    text: str = field(repr=False)
    where: str


def about(help: str, parse: Callable[[str], Any], example: str = "") -> dict[str, Any]:
    """Describe a setting, as a field's metadata.

    `parse` turns the text into the value, or raises ValueError with words that can follow the variable's name. Only a
    setting without a default is also parsed when it is blank. `example` is for .env.example, in place of the default.
    """
    return {"help": help, "parse": parse, "example": example}


def word(given: str) -> str:
    """Accept printable ASCII without spaces and quotation marks: those come along from a comment or a shell."""
    if not (given.isascii() and given.isprintable()) or set(given) & set(" \"'"):
        raise ValueError("holds a space, a quotation mark or an odd character: write the bare value and nothing else")
    return given


def openai_key(given: str) -> SecretStr:
    """Accept what may be a key."""
    if given in ("", PLACEHOLDER):
        state = "is still the placeholder" if given else "is missing"
        raise ValueError(
            f"{state}: put your key into .env or the platform's environment, or set OFFLINE=1 for the stand-in model"
        )
    return SecretStr(word(given))


def callers_keys(given: str) -> SecretStr:
    """Accept secrets with commas between them."""
    keys = [word(key.strip()) for key in given.split(",") if key.strip()]
    if not keys:
        raise ValueError("holds no key: give at least one")
    return SecretStr(",".join(keys))


def flag(given: str) -> bool:
    """Accept 1, true, yes, on and 0, false, no, off in any case."""
    if given.lower() in ("1", "true", "yes", "on"):
        return True
    if given.lower() in ("0", "false", "no", "off"):
        return False
    raise ValueError("must be 1 or 0 (or true, yes, on, false, no, off)")


def port_number(given: str) -> int:
    """Accept the number of a TCP port."""
    if given.isascii() and given.isdigit() and len(given) <= 5 and 1 <= int(given) <= 65535:
        return int(given)
    raise ValueError("must be a whole number from 1 to 65535")


def url(given: str) -> str:
    """Accept an http or https address that holds no password."""
    try:
        parts = urlsplit(word(given))
        ok = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:  # its words could repeat the value
        ok = False
    if not ok:
        raise ValueError("must be an address like https://host/path, without a user name or a password")
    return given


def environment_name(given: str) -> str:
    """Accept the environments there are."""
    if given.lower() not in ("development", "production"):
        raise ValueError("must be development or production")
    return given.lower()


@dataclass(frozen=True)
class Config:
    """Every setting of the service; a variable's name is its field's in capitals."""

    openai_api_key: SecretStr = field(
        metadata=about("Your key: https://platform.openai.com/api-keys", openai_key, PLACEHOLDER)
    )
    openai_base_url: str | None = field(
        default=None,
        metadata=about("Any OpenAI-compatible server (Ollama, vLLM, llama.cpp) instead of api.openai.com", url, OLLAMA),
    )
    openai_model: str = field(default="gpt-4o-mini", metadata=about("The model that answers", word))
    offline: bool = field(
        default=False, metadata=about("1 asks for the stand-in model: no key, no network, no cost", flag, "1")
    )
    api_key: SecretStr = field(
        default=SecretStr(DEFAULT_API_KEY),
        metadata=about("The keys of your API's callers, comma-separated", callers_keys, DEFAULT_API_KEY),
    )
    environment: str = field(
        default="development",
        metadata=about("development or production; production refuses what is only for development", environment_name),
    )
    debug: bool = field(default=False, metadata=about("1 shows tracebacks to callers", flag, "1"))
    host: str = field(default="127.0.0.1", metadata=about("The address where --serve listens", word))
    port: int = field(default=8000, metadata=about("The port where --serve listens", port_number))

    @property
    def api_keys(self) -> tuple[str, ...]:
        """The callers' keys, for comparing."""
        return tuple(self.api_key.get_secret_value().split(","))

    @classmethod
    def from_environment(cls, env: Mapping[str, str] | None = None, *, dotenv_file: Path | None = None) -> Self:
        """Read the environment laid over a .env file; raises ConfigurationError with every problem at once.

        By default that is the process's environment over the nearest .env; with an `env`, only the file named.
        """
        if env is None:
            env, dotenv_file = os.environ, dotenv_file or nearest_dotenv()
        given, problems = read_dotenv(dotenv_file) if dotenv_file else ({}, [])
        given |= {
            name: Given(value, "environment" if value.strip() else "blank in the environment")
            for name, value in env.items()
        }
        values: dict[str, Any] = {}
        for each in sorted(fields(cls), key=lambda each: each.default is MISSING):  # OFFLINE comes before the key
            name, required = each.name.upper(), each.default is MISSING
            found = given.get(name, Given("", "not set"))
            if required and values.get("offline"):
                values[each.name] = SecretStr("offline")
            elif (value := found.text.strip()) or required:
                try:
                    values[each.name] = each.metadata["parse"](value)
                except ValueError as error:
                    values[each.name] = None  # given, and known to be wrong
                    problems.insert(0 if required else len(problems), f"{name} ({found.where}) {error}")
        problems += misspelt(given, [each.name.upper() for each in fields(cls)])
        if values.get("environment") == "production":
            problems += unfit_for_production(values)
        if problems:
            raise ConfigurationError(problems)
        return cls(**values)


def unfit_for_production(values: Mapping[str, Any]) -> list[str]:
    """Say which of the given values are for development only."""
    problems = []
    api_key = values.get("api_key", SecretStr(DEFAULT_API_KEY))
    keys = api_key.get_secret_value().split(",") if api_key else []
    if DEFAULT_API_KEY in keys:
        problems.append(f"API_KEY is the default, which everybody knows; production needs one of your own: {NEW_KEY}")
    elif any(len(key) < SHORTEST_API_KEY for key in keys):
        problems.append(f"API_KEY holds a key shorter than {SHORTEST_API_KEY} characters; make a longer one: {NEW_KEY}")
    if values.get("offline"):
        problems.append("OFFLINE=1 is refused in production: a stand-in must not answer customers")
    if values.get("debug"):
        problems.append("DEBUG=1 is refused in production: tracebacks are not for callers")
    return problems


def misspelt(given: Mapping[str, Given], names: list[str]) -> list[str]:
    """Find given names that are one slip away from a setting that is not given."""
    return [
        f"{stranger} ({given[stranger].where}) is not a setting: did you mean {name}?"
        for stranger in given
        for name in names
        if stranger not in names and name not in given and one_slip(stranger, name)
    ]


def one_slip(left: str, right: str) -> bool:
    """Tell whether two names are alike but for case, underscores and one letter: missing, extra, wrong or swapped."""

    def shortened(name: str) -> set[str]:
        letters = name.upper().replace("_", "").replace("-", "")
        return {letters, *(letters[:at] + letters[at + 1 :] for at in range(len(letters)))}

    return not shortened(left).isdisjoint(shortened(right))


def nearest_dotenv() -> Path | None:
    """Return the .env in the current folder, or the first one from this file's folder upwards."""
    folders = (Path.cwd(), *Path(__file__).resolve().parents[:3])
    return next((folder / ".env" for folder in folders if (folder / ".env").is_file()), None)


def read_dotenv(file: Path) -> tuple[dict[str, Given], list[str]]:
    """Read NAME=value lines as python-dotenv does, but leave $NAMES alone; returns them, and what is no such line."""
    try:
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        return {}, [f"{file.name} is not UTF-8 text: save it as UTF-8 (Windows PowerShell writes UTF-16)"]
    except OSError as error:
        return {}, [f"{file.name} cannot be read: {error.strerror}"]
    given: dict[str, Given] = {}
    problems = []
    for each in dotenv.parser.parse_stream(io.StringIO(content)):
        original = each.original.string
        line = each.original.line + original[: len(original) - len(original.lstrip())].count("\n")
        if each.error or (each.key and each.value is None):
            problems.append(f"{file.name}, line {line} is not NAME=value, or a quotation mark is not closed")
        elif each.key and each.value is not None:
            value = "" if each.value.startswith("#") else each.value  # `NAME= # comment`, in older versions
            given[each.key] = Given(value, f"{file.name}, line {line}")
    return given, problems


def env_example(settings: type[Config] = Config) -> str:
    """Return .env.example: what is required with a placeholder, the rest as comments."""
    blocks = ["# Copy to .env and fill in. A variable of the environment wins over this file.\n"]
    for each in fields(settings):
        line = f"{each.name.upper()}={each.metadata['example'] or each.default}"
        blocks.append(f"# {each.metadata['help']}\n{'' if each.default is MISSING else '#'}{line}\n")
    return "\n".join(blocks)


def table() -> str:
    """Return the settings as a Markdown table."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for each in fields(Config):
        default = "a key for development" if isinstance(each.default, SecretStr) else f"`{each.default}`"
        default = "required" if each.default is MISSING else default
        rows.append(f"| `{each.name.upper()}` | {default} | {each.metadata['help']} |")
    return "\n".join(rows) + "\n"


def create_app(config: Config | None = None, *, client: "AsyncOpenAI | None" = None) -> FastAPI:
    """Build the chat from a Config; without one, from the environment, before anything listens."""
    config = config or Config.from_environment()
    app = base_app(as_settings(config), client)
    app.debug = config.debug

    @app.post("/v1/chat", responses=may_answer(400, 401, 502, 503, 504))
    async def chat(request: Request, body: ChatRequest, caller: Caller) -> ChatResponse:
        conversation_id = body.conversation_id or uuid.uuid4().hex
        reply = await unless_gone(request, ask(request.app.state.agent, body.message, f"{caller}/{conversation_id}"))
        return ChatResponse(response=reply.text, conversation_id=conversation_id)

    @app.get("/v1/config", responses=may_answer(401))
    async def configuration(caller: Caller) -> dict[str, Any]:
        return asdict(config)  # secrets become asterisks on their way to JSON

    return app


def as_settings(config: Config) -> Settings:
    """Hand the values to the plain service of section 19.2."""
    return Settings(
        openai_api_key=config.openai_api_key.get_secret_value(),
        openai_base_url=config.openai_base_url,
        model=config.openai_model,
        api_keys=config.api_keys,
        environment=config.environment,
        offline=config.offline,
        host=config.host,
        port=config.port,
    )


def main(argv: list[str] | None = None) -> int:
    """Show what a wrong configuration is told, and what a right one looks like from outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="read the configuration, and serve or say what is wrong")
    parser.add_argument("--env-example", action="store_true", help="print .env.example")
    parser.add_argument("--table", action="store_true", help="print the settings as a Markdown table")
    args = parser.parse_args(argv)
    if args.env_example or args.table:
        print(env_example() if args.env_example else table(), end="")
        return 0
    if args.serve:
        try:
            config = Config.from_environment()
        except ConfigurationError as error:
            parser.exit(2, f"{error}\n")
        demo.serve(create_app(config), as_settings(config))
        return 0

    def right(settings: Settings) -> FastAPI:
        key, keys = SecretStr(settings.openai_api_key), SecretStr(",".join(settings.api_keys))
        return create_app(Config(key, settings.openai_base_url, settings.model, settings.offline, keys))

    steps = [
        demo.Send("GET", "/v1/config", note="a right configuration, as the app shows it"),
        demo.Send("POST", "/v1/chat", {"message": "What is 6 * 7?"}, note="and it works"),
    ]
    demo.run(__doc__, right, steps, [])
    for wrong in ({}, {"OPENAI_API_KEY": PLACEHOLDER, "PROT": "9000", "DEBUG": "maybe", "ENVIRONMENT": "production"}):
        demo.say(f"\nwith {' '.join(f'{name}={value}' for name, value in wrong.items()) or 'nothing set'}")
        try:
            Config.from_environment(wrong)
        except ConfigurationError as error:
            for line in str(error).splitlines():
                demo.say(f"  {line}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
