"""19.3.2: a configuration that is read once and refuses to start when something required is missing.

The app is started again and again, alone in an empty folder, with other variables and another .env beside it.
Readings accepted: a refusal while importing, in the lifespan, or of `python FILE` with an exit status that is not 0;
any words, if they name OPENAI_API_KEY; one API key or several; a module with no app but a `Config` that has
`from_environment`, as in the chapter: it is judged with the smallest chat around it.
"""

from __future__ import annotations

import functools
import secrets

from tests.kit.app import App
from tests.kit.contract import NotChecked, check, expect
from tests.kit.restart import Started, run_script, start_alone

WORTH_THINKING = (
    "ours names all problems at once, and a misspelt variable (PROT) is one; yours may run on a default nobody chose."
)

BULLET_1 = "19.3.2 bullet 1"
BULLET_2 = "19.3.2 bullet 2"
BULLET_3 = "19.3.2 bullet 3"
BULLET_4 = "19.3.2 bullet 4"
NOT_SET = {"OPENAI_API_KEY": ""}


def key() -> str:
    """Return a key that nobody has seen before."""
    return f"sk-check-{secrets.token_hex(8)}"


@functools.cache
def without(app: App, dotenv: str) -> tuple[bool, str]:
    """Start without OPENAI_API_KEY; returns whether the app refuses, and what it says."""
    with start_alone(app, NOT_SET, dotenv) as started:
        if started.app is None:
            return True, started.said
    status, output = run_script(app, NOT_SET, dotenv)  # perhaps it looks at its configuration only as a script
    return status not in (0, None), output


def shortened(output: str) -> str:
    """Return the end of an output, where the reason stands, in one line."""
    return " | ".join(line.strip() for line in output.splitlines() if line.strip())[-400:] or "nothing was printed"


def must_be_up(started: Started, *, when: str) -> App:
    """Return the app, which has to be up."""
    expect(started.app is not None, when=when, expected="the app starts", came=shortened(started.said))
    assert started.app
    return started.app


@check(
    "Works locally with a .env file",
    chapter=BULLET_1,
    needs={"env", "llm"},
    hints=(
        "OPENAI_API_KEY may come from a file called .env beside your script.",
        "python-dotenv reads it: load it before you look at the environment.",
        "from dotenv import load_dotenv; load_dotenv() -- and then os.getenv(...)",
    ),
)
def dotenv(app: App) -> None:
    when = "OPENAI_API_KEY stands in .env and nowhere else"
    with start_alone(app, NOT_SET, f"# the key\nOPENAI_API_KEY={key()}\n") as started:
        exchange = must_be_up(started, when=when).chat()
        expect(exchange.answered, when=when, expected="a chat that the model answers", seen=exchange)


@check(
    "Works in production with platform environment variables",
    chapter=BULLET_2,
    needs={"env", "llm"},
    hints=(
        "A platform sets variables; whatever a .env file says beside them, they win.",
        "load_dotenv() leaves a variable alone that is set already, unless it is told to override it.",
        "load_dotenv() without override=True, or {**dotenv_values(), **os.environ}.",
    ),
)
def platform(app: App) -> None:
    if not app.manner.checks_keys:
        raise NotChecked("your app accepts every key, so nobody can see which API_KEY it has read")
    ours, theirs = key(), key()
    when = "the environment says API_KEY=A, and .env says API_KEY=B"
    with start_alone(app, {"API_KEY": ours, "API_KEYS": ours}, f"API_KEY={theirs}\nAPI_KEYS={theirs}\n") as started:
        up = must_be_up(started, when=when)
        if up.chat(key=ours).status in (401, 403) and up.chat(key=theirs).status in (401, 403):
            raise NotChecked("your app does not take its API key from API_KEY")
        exchange = up.chat(key=ours)
        expect(exchange.answered, when=when, expected="key A is accepted", seen=exchange)
        exchange = up.chat(key=theirs)
        expect(exchange.status in (401, 403), when=when, expected="key B is refused", seen=exchange)


@check(
    "Has sensible defaults for optional settings",
    chapter=BULLET_3,
    needs={"env"},
    hints=(
        "Only OPENAI_API_KEY is required; whatever else you read from the environment may be missing.",
        "Give every optional setting a default value.",
        'port: int = 8000 in the class, and int(os.getenv("PORT", "8000")) where it is read.',
    ),
)
def defaults(app: App) -> None:
    unset = dict.fromkeys(("API_KEY", "API_KEYS", "PORT", "HOST", "DEBUG", "ENVIRONMENT"), "")
    with start_alone(app, unset) as started:
        must_be_up(started, when="OPENAI_API_KEY is set, and nothing else of yours")


@check(
    "Validates that required variables are present at startup",
    chapter=BULLET_4,
    needs={"env"},
    hints=(
        "Without OPENAI_API_KEY the app must not start at all.",
        "Read the configuration while the app is built, not when the first request comes.",
        'config = Config.from_environment() beside app = FastAPI(); it raises ConfigurationError when the key is ""',
    ),
)
def required(app: App) -> None:
    refuses, said = without(app, "")
    expect(
        refuses,
        when="OPENAI_API_KEY is not set, and there is no .env",
        expected="the app does not start",
        came=f"it started, or ended with status 0: {shortened(said)}",
    )


@check(
    "Validates that required variables are present at startup: a blank one is missing, too",
    chapter=BULLET_4,
    needs={"env"},
    hints=(
        "OPENAI_API_KEY= with nothing behind it is as good as not set.",
        "Look at the value, not only at whether the name is there.",
        'if not os.getenv("OPENAI_API_KEY", "").strip(): raise ConfigurationError("OPENAI_API_KEY is required.")',
    ),
)
def blank(app: App) -> None:
    if not without(app, "")[0]:
        raise NotChecked("it starts even when the variable is not set at all")
    refuses, said = without(app, "OPENAI_API_KEY=\n")
    expect(
        refuses,
        when="the only line of .env is OPENAI_API_KEY=",
        expected="the app does not start",
        came=f"it started, or ended with status 0: {shortened(said)}",
    )


@check(
    "Validates that required variables are present at startup: and says which one is missing",
    chapter=BULLET_4,
    needs={"env"},
    hints=(
        "Whoever starts the app must read the name of the variable that is missing.",
        "Put the name into the message of your exception, and let the message be seen.",
        'raise ConfigurationError("OPENAI_API_KEY is required: put it into .env or the environment")',
    ),
)
def names_it(app: App) -> None:
    refuses, said = without(app, "")
    if not refuses:
        raise NotChecked("it starts without OPENAI_API_KEY")
    expect(
        "OPENAI_API_KEY" in said,
        when="OPENAI_API_KEY is not set, and the app refuses to start",
        expected="an output that names OPENAI_API_KEY",
        came=shortened(said),
    )


@check(
    "Works in production with platform environment variables: and keeps them to itself",
    chapter=BULLET_2,
    needs={"env", "logs"},
    hints=(
        "The values of keys never belong into what a program prints: logs are read by many.",
        "A dataclass prints all its fields; take the secret ones out of its repr.",
        "openai_api_key: str = field(repr=False) -- or pydantic's SecretStr",
    ),
)
def no_secrets(app: App) -> None:
    openai_key, api_key = key(), key()
    with start_alone(app, {"OPENAI_API_KEY": openai_key, "API_KEY": api_key}) as started:
        said = started.said + (started.app.output() if started.app else "")
    with start_alone(app, {**NOT_SET, "API_KEY": api_key}) as refused:
        said += refused.said
    for name, value in (("OPENAI_API_KEY", openai_key), ("API_KEY", api_key)):
        expect(
            value not in said,
            when=f"the app starts with {name}={value}, or refuses to start",
            expected="an output without that value",
            came=shortened(said[: said.find(value) + 60]),
        )
