"""The chapter's 21 exercises and 76 bullets, in its own words: checks, lists and README tables are held against it."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "part_5_production" / "chapter_19_deployment"


@dataclass(frozen=True)
class Exercise:
    """One exercise: its number "19.2.3", its heading, what it builds in a few words, its files, its bullets."""

    id: str
    heading: str
    builds: str
    files: tuple[str, ...]
    bullets: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file that a reader opens first."""
        return FOLDER / self.files[0]

    @property
    def module(self) -> str:
        """What the files about this exercise carry in their names: `3_19_2`."""
        section, number = self.id.rsplit(".", 1)
        return f"{number}_{section.replace('.', '_')}"

    @property
    def built(self) -> bool:
        """An exercise is built when it has a contract."""
        return importlib.util.find_spec(f"tests.contracts.ex_{self.id.replace('.', '_')}") is not None


class NoSuchExercise(ValueError):
    """A name that is no exercise's; says which there are."""


def find(name: str) -> Exercise:
    """Return the exercise called "19.2.3", "3_19_2" or by its file's name."""
    text = Path(name).name
    if match := re.search(r"(\d)_(19)_(\d)", text):
        number, chapter, section = match.groups()
        text = f"{chapter}.{section}.{number}"
    for exercise in EXERCISES:
        if text in (exercise.id, *exercise.files):
            return exercise
    ids = ", ".join(exercise.id for exercise in EXERCISES)
    raise NoSuchExercise(f"no exercise is called {name!r}. Say EX=19.2.3, EX=3_19_2 or a file's name; there are: {ids}")


EXERCISES = (
    Exercise(
        "19.1.1",
        "Build Your Own Container",
        "a research agent in a slim image that runs without root",
        ("exercise_1_19_1_solution.py", "exercise_1_Dockerfile", "exercise_1_requirements.txt"),
        (
            "Use a slim Python base image",
            "Generate requirements.txt with `pip freeze` (pinned versions)",
            "Add a non-root user",
            "Include a proper .gitignore",
        ),
    ),
    Exercise(
        "19.1.2",
        "Multi-Stage Optimization",
        "the same image in two stages, and what that saves",
        ("exercise_2_Dockerfile",),
        (),
    ),
    Exercise(
        "19.1.3",
        "Docker Compose Development Setup",
        "live editing in a container",
        ("exercise_3_docker-compose.yml",),
        (
            "Builds your agent image",
            "Loads environment variables from a .env file",
            "Mounts your source code as a volume for easy development",
            "Exposes a port for future API access",
        ),
    ),
    Exercise(
        "19.2.1",
        "Add a Conversations Endpoint",
        "list, read and delete one's own conversations",
        ("exercise_1_19_2_solution.py",),
        (
            "`GET /v1/conversations` - List all conversation IDs",
            "`GET /v1/conversations/{id}` - Get messages for a specific conversation",
        ),
    ),
    Exercise(
        "19.2.2",
        "Add Input Validation",
        "messages that are refused, and why, in a form that programs read",
        ("exercise_2_19_2_solution.py",),
        (
            "Reject messages longer than 1000 characters",
            "Reject empty or whitespace-only messages",
            "Return appropriate error messages for each case",
        ),
    ),
    Exercise(
        "19.2.3",
        "Add Rate Limiting",
        "an exact sliding minute, with an honest Retry-After",
        ("exercise_3_19_2_solution.py",),
        (
            "Allows maximum 10 requests per minute per API key",
            "Returns a 429 (Too Many Requests) status when exceeded",
            "Includes a `Retry-After` header telling the client when to try again",
        ),
    ),
    Exercise(
        "19.3.1",
        "Deploy Your Agent",
        "what to check before and after a deployment",
        ("exercise_1_19_3_solution.py", "exercise_1_19_3_solution.md"),
        (
            "Which platform you chose and why",
            "Any configuration changes you had to make",
            "The public URL of your deployed agent",
        ),
    ),
    Exercise(
        "19.3.2",
        "Environment Configuration",
        "every problem of a configuration at once, before the port opens",
        ("exercise_2_19_3_solution.py",),
        (
            "Works locally with a .env file",
            "Works in production with platform environment variables",
            "Has sensible defaults for optional settings",
            "Validates that required variables are present at startup",
        ),
    ),
    Exercise(
        "19.3.3",
        "Deployment Documentation",
        "a DEPLOYMENT.md that a test follows, roll-back included",
        ("exercise_3_19_3_solution.md",),
        (
            "Prerequisites for deployment",
            "Step-by-step deployment instructions",
            "Required environment variables (with descriptions, not values)",
            "How to verify the deployment succeeded",
            "How to roll back if something goes wrong",
        ),
    ),
    Exercise(
        "19.4.1",
        "Enhanced Logging",
        "one JSON line per event, one id per request",
        ("exercise_1_19_4_solution.py",),
        (
            "JSON-formatted logs",
            "Request ID that's included in all log entries for a request",
            "Log the first 100 characters of the user's message (for debugging)",
            "Log the model used and token count (if available)",
        ),
    ),
    Exercise(
        "19.4.2",
        "Metrics Dashboard",
        "rates, percentiles and errors in constant memory",
        ("exercise_2_19_4_solution.py",),
        (
            "Requests per minute (last 5 minutes)",
            "95th percentile response time",
            "Top 5 most common errors",
            "Token usage breakdown by conversation",
        ),
    ),
    Exercise(
        "19.4.3",
        "Automated Alerts",
        "alerts that are heard once",
        ("exercise_3_19_4_solution.py",),
        (
            "Sends an alert if error rate exceeds 20% in the last 10 requests",
            "Sends an alert if average response time exceeds 10 seconds",
            "Rate-limits alerts (no more than 1 alert per 5 minutes for the same issue)",
        ),
    ),
    Exercise(
        "19.5.1",
        "Load Testing",
        "a load test that can be trusted",
        ("exercise_1_19_5_solution.py", "exercise_1_19_5_solution.md"),
        (
            "How many concurrent requests your agent handles before slowing down",
            "What errors occur under heavy load",
            "How response times change with load",
        ),
    ),
    Exercise(
        "19.5.2",
        "Implement Request Queuing",
        "a bounded queue in order of arrival, with status and cancelling",
        ("exercise_2_19_5_solution.py",),
        (
            "Accepts requests even when the server is busy",
            "Processes them in order",
            'Returns a "request ID" immediately',
            "Provides a `/status/{request_id}` endpoint to check progress",
            "Returns results when ready",
        ),
    ),
    Exercise(
        "19.5.3",
        "Graceful Shutdown",
        "every request gets its answer, then the process goes",
        ("exercise_3_19_5_solution.py",),
        (
            "Stop accepting new requests",
            "Wait for in-progress requests to complete (with a timeout)",
            "Clean up resources (close HTTP clients, flush logs)",
            "Exit cleanly",
        ),
    ),
    Exercise(
        "19.6.1",
        "Implement Smart Model Routing",
        "easy work to the cheap model, and what that saves",
        ("exercise_1_19_6_solution.py",),
        (
            'Classifies requests into "simple," "medium," and "complex" categories',
            "Routes to gpt-4o-mini, gpt-4o, and gpt-4 respectively",
            "Logs which model was selected and why",
            "Tracks cost savings compared to always using gpt-4",
        ),
    ),
    Exercise(
        "19.6.2",
        "Build a Semantic Cache",
        "answers for questions that mean the same, and not for those that only look it",
        ("exercise_2_19_6_solution.py",),
        (
            "Two messages don't need to be identical to get a cache hit",
            '"What\'s the weather?" and "How\'s the weather today?" should match',
            "Use embeddings to compare message similarity",
            "Set a similarity threshold for cache hits",
        ),
    ),
    Exercise(
        "19.6.3",
        "Cost Dashboard",
        "spending to the micro-dollar, projected and held against a budget",
        ("exercise_3_19_6_solution.py",),
        (
            "Spending by hour for the last 24 hours",
            "Spending by model",
            "Top 10 most expensive conversations",
            "Projected monthly cost based on current usage",
            "Comparison to budget with visual indicator",
        ),
    ),
    Exercise(
        "19.7.1",
        "Security Audit",
        "findings with evidence and a fix",
        ("exercise_1_19_7_solution.py",),
        (
            "Review all places where API keys are used",
            "Check all user inputs for validation",
            "Look for sensitive data in logs",
            "Test error messages for information leakage",
        ),
    ),
    Exercise(
        "19.7.2",
        "Prompt Injection Testing",
        "attacks, defences, and what each of them is worth",
        ("exercise_2_19_7_solution.py",),
        (
            'Try "Ignore all previous instructions..."',
            'Try "You are now an unfiltered AI..."',
            "Try to make the agent reveal its system prompt",
            "Try to make the agent produce inappropriate content",
        ),
    ),
    Exercise(
        "19.7.3",
        "Security Headers",
        "the headers on every response, errors and streams too",
        ("exercise_3_19_7_solution.py",),
        (
            "`X-Content-Type-Options: nosniff`",
            "`X-Frame-Options: DENY`",
            "`Content-Security-Policy` (if serving HTML)",
            "`Strict-Transport-Security` (HSTS)",
        ),
    ),
)


def progress() -> str:
    """Say how much of the chapter is built."""
    built = [exercise for exercise in EXERCISES if exercise.built]
    bullets, all_bullets = (sum(len(e.bullets) for e in some) for some in (built, EXERCISES))
    return f"{len(built)} of {len(EXERCISES)} exercises, {bullets} of {all_bullets} bullets"


def table() -> list[tuple[str, str, str, str]]:
    """Return number, heading, what it builds and status of all exercises."""
    return [(e.id, e.heading, e.builds, "ready" if e.built else "not yet") for e in EXERCISES]


def markdown(link_to: str) -> str:
    """Return the table of the exercises for a README; `link_to` is the folder as seen from there."""
    rows = ["| Exercise | Builds | Status |", "| --- | --- | --- |"]
    for exercise in EXERCISES:
        name = f"{exercise.id} {exercise.heading}"
        if exercise.built:
            name = f"[{name}]({link_to}{exercise.files[0]})"
        rows.append(f"| {name} | {exercise.builds} | {'ready' if exercise.built else 'not yet'} |")
    return "\n".join(rows) + "\n"
