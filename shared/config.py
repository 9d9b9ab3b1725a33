"""Settings: what every script needs to start, read once, from one place.

Variables of the environment win over a `.env` file in the current directory, the chapter folder or the repository's
root (the first one found). Exercise 2 of section 19.3 is about doing this thoroughly; this is the plain version.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHAPTER = ROOT / "part_5_production" / "chapter_19_deployment"
PLACEHOLDER_KEY = "sk-your-openai-api-key-here"
DEFAULT_API_KEY = "dev-key-change-in-production"
TRUE, FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class SettingsError(ValueError):
    """Every problem with the settings at once; names variables and remedies, never values."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("cannot start:\n" + "\n".join(f"  - {problem}" for problem in problems))


@dataclass(frozen=True)
class Settings:
    """What a service of this chapter is started with. Secrets stay out of the repr."""

    openai_api_key: str = field(repr=False)
    openai_base_url: str | None = field(default=None, repr=False)  # may carry a password
    model: str = "gpt-4o-mini"
    api_keys: tuple[str, ...] = field(default=(DEFAULT_API_KEY,), repr=False)
    environment: str = "development"
    offline: bool = False
    host: str = "127.0.0.1"
    port: int = 8000

    @classmethod
    def load(cls, env: Mapping[str, str] | None = None, *, demo: bool = False) -> Settings:
        """Read the settings; `demo` falls back to the stand-in model where a server would refuse to start.

        Raises SettingsError with every problem found.
        """
        env = environment() if env is None else env
        problems: list[str] = []

        def get(name: str, default: str = "") -> str:
            return env.get(name, "").strip() or default

        offline = get("OFFLINE").lower()
        if offline not in TRUE + FALSE:
            problems.append("OFFLINE must be 1 or 0")
        use_stand_in = offline in TRUE
        key = get("OPENAI_API_KEY")
        if not use_stand_in and key in ("", PLACEHOLDER_KEY):
            use_stand_in = demo
            if not demo:
                state = "still the placeholder" if key else "not set"
                problems.append(
                    f"OPENAI_API_KEY is {state}: put your key into .env or the environment, "
                    "or set OFFLINE=1 to ask for the stand-in model"
                )

        name = get("ENVIRONMENT", "development").lower()
        if name not in ("development", "production"):
            problems.append("ENVIRONMENT must be development or production")
        api_keys = tuple(k.strip() for k in get("API_KEY", DEFAULT_API_KEY).split(",") if k.strip())
        if not api_keys:
            problems.append("API_KEY holds no key: give at least one, separated by commas")
        if not all(k.isascii() and k.isprintable() for k in api_keys):
            problems.append("API_KEY must be printable ASCII: a header carries nothing else unchanged")
        if name == "production":
            if DEFAULT_API_KEY in api_keys:
                problems.append("API_KEY is the default in production: set a long random value of your own")
            if use_stand_in:
                problems.append("OFFLINE=1 is refused in production: a stand-in must not answer customers")

        port = get("PORT", "8000")
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            problems.append("PORT must be a whole number from 1 to 65535")
        if problems:
            raise SettingsError(problems)
        return cls(
            openai_api_key=key or "offline",
            openai_base_url=get("OPENAI_BASE_URL") or None,
            model=get("OPENAI_MODEL", cls.model),
            api_keys=api_keys,
            environment=name,
            offline=use_stand_in,
            host=get("HOST", cls.host),
            port=int(port),
        )


def environment() -> dict[str, str]:
    """Return the process's environment laid over the first `.env` file found."""
    from dotenv import dotenv_values

    folders = (Path.cwd(), CHAPTER, ROOT)
    file = next((folder / ".env" for folder in folders if (folder / ".env").is_file()), None)
    values = dotenv_values(file, encoding="utf-8-sig") if file else {}
    return {name: value for name, value in values.items() if value is not None} | dict(os.environ)
