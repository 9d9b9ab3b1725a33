"""Serve: `python -m production` in the chapter folder; PORT and HOST say where, every setting is in .env.example."""

from __future__ import annotations

import argparse
import gc
import sys

from exercise_2_19_3_solution import ConfigurationError, env_example

import find_shared  # noqa: F401  (makes shared/ importable from any directory)
from production.settings import Production


def main() -> int:
    """Read the settings, say where it listens, serve; exit status 2 for settings that are wrong."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="python -m production", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="processes; more than one needs both stores")
    parser.add_argument("--env-example", action="store_true", help="print .env.example")
    args = parser.parse_args()
    if args.env_example:
        print(env_example(Production), end="")
        return 0
    try:
        config = Production.from_environment()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 2
    if args.workers > 1 and not (config.redis_url and config.database_url):
        print("several workers share nothing yet: set REDIS_URL and DATABASE_URL", file=sys.stderr)
        return 2
    url = f"http://{config.host}:{config.port}"
    print(f"{'the stand-in model' if config.offline else config.openai_model} at {url}/docs", flush=True)
    gc.disable()  # a quarter of start-up; the lifespan turns it on again
    uvicorn.run(
        "production.app:create_app",
        factory=True,
        host=config.host,
        port=config.port,
        workers=args.workers,
        server_header=False,
        access_log=False,  # RequestLogMiddleware says more
        ws="none",
        backlog=2048,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
