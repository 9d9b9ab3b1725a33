"""19.7.1: the security audit.

The script is given a folder with an agent in it, as its argument and as its working directory. What counts is what it
says of an agent with a mistake and does not say of the same agent without it, on the terminal or in a report file
(in that folder, or beside the script); the time and the folder's place do not count.
Readings accepted: any words and any form of report, any exit status; static or dynamic checks.
"""

from __future__ import annotations

import random
import re
import string
from typing import Any

from tests.kit.contract import NotChecked, check, expect
from tests.kit.tool import Tool

WORTH_THINKING = (
    "ours follows a value through assignments, and starts the app with canaries to see where they come out."
)

AGENT = """\
import logging
import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

logger = logging.getLogger("agent")
OPENAI_API_KEY = os.environ["OPENAI_API_KEY"]
app = FastAPI()


class ChatRequest(BaseModel):
    message: str = Field(min_length=1, max_length=1000)


@app.post("/v1/chat")
async def chat(request: ChatRequest):
    try:
        reply = answer(request.message)
    except Exception:
        logger.exception("the agent failed")
        raise HTTPException(status_code=500, detail="Internal error")
    logger.info("answered")
    return {"response": reply}


def answer(question: str) -> str:
    return question[::-1]
"""
SOUND = {
    "agent.py": AGENT,
    "requirements.txt": "fastapi==0.165.0\npydantic==2.14.3\nuvicorn==0.54.0\n",
    ".gitignore": ".env\n__pycache__/\n",
}


def secret() -> str:
    """Make up a key that no tool has seen."""
    return "sk-proj-" + "".join(random.choices(string.ascii_letters + string.digits, k=48))


def with_mistake(old: str, new: str) -> dict[str, str]:
    """Return the agent with one mistake."""
    assert old in AGENT
    return SOUND | {"agent.py": AGENT.replace(old, new)}


def must_tell(tool: Tool, files: dict[str, str], words: str, what: str) -> None:
    """Expect the tool to say something about this mistake, in any of these words."""
    news, ran = tool.news(files, SOUND)
    seen: Any = ran
    expect(
        bool(re.search(words, "\n".join(news), re.IGNORECASE)),
        when=f"an agent in whose agent.py {what}",
        expected="a line about it that the same agent without the mistake does not get",
        came=" | ".join(news)[:200] or "the same report as without the mistake",
        seen=seen,
    )


@check(
    "Review all places where API keys are used",
    chapter="19.7.1 bullet 1",
    needs={"tool"},
    hints=(
        "A key that is written into the source must be reported.",
        "Keys have formats: sk-..., ghp_..., AKIA...; and names: API_KEY, SECRET, TOKEN with a string as value.",
        're.findall(r"sk-[A-Za-z0-9_-]{20,}", text), or every ast.Assign whose target is called *KEY.',
    ),
)
def keys_in_source(tool: Tool) -> None:
    files = with_mistake('OPENAI_API_KEY = os.environ["OPENAI_API_KEY"]', f'OPENAI_API_KEY = "{secret()}"')
    must_tell(tool, files, r"key|secret|credential|token", "the key is written down")


@check(
    "Check all user inputs for validation",
    chapter="19.7.1 bullet 2",
    needs={"tool"},
    hints=(
        "A message without a longest length must be reported.",
        "Look at the models of request bodies: a field of type str without max_length.",
        "Find classes that derive from BaseModel; report each `name: str` whose default has no max_length.",
    ),
)
def unlimited_input(tool: Tool) -> None:
    files = with_mistake("message: str = Field(min_length=1, max_length=1000)", "message: str")
    must_tell(tool, files, r"valid|length|limit|input|bound|Field\(", "the message has no limit")


@check(
    "Look for sensitive data in logs",
    chapter="19.7.1 bullet 3",
    needs={"tool"},
    hints=(
        "A key that is logged must be reported.",
        "Look at the arguments of logger.info, logger.debug and print.",
        "For every call of a logger, report names like *key*, *password*, *token* among its arguments.",
    ),
)
def key_in_log(tool: Tool) -> None:
    files = with_mistake('logger.info("answered")', 'logger.info(f"answered with {OPENAI_API_KEY}")')
    must_tell(tool, files, r"\blog|sensitive|print", "the key is logged")


@check(
    "Test error messages for information leakage",
    chapter="19.7.1 bullet 4",
    needs={"tool"},
    hints=(
        "An error whose own words are sent to the client must be reported.",
        "Look for str(e) in HTTPException(detail=...) and in what is returned.",
        're.search(r"detail=.*(str\\(e|\\{e)", line), or the same on the syntax tree.',
    ),
)
def error_leaks(tool: Tool) -> None:
    files = with_mistake(
        'except Exception:\n        logger.exception("the agent failed")\n'
        '        raise HTTPException(status_code=500, detail="Internal error")',
        'except Exception as e:\n        logger.exception("the agent failed")\n'
        "        raise HTTPException(status_code=500, detail=str(e))",
    )
    must_tell(tool, files, r"error|exception|leak|detail|internal", "the error is sent to the client")


@check(
    "What is found is documented without repeating the secret",
    chapter="19.7.1",
    needs={"tool"},
    hints=(
        "A report is sent around: the key it warns of must not stand in it.",
        "Show the first characters at most, and stars for the rest.",
        'value[:4] + "****"',
    ),
)
def secret_masked(tool: Tool) -> None:
    key = secret()
    ran: Any = tool.run(with_mistake('OPENAI_API_KEY = os.environ["OPENAI_API_KEY"]', f'OPENAI_API_KEY = "{key}"'))
    expect(
        key[8:] not in ran.output,
        when="an agent in whose agent.py the key is written down",
        expected="a report that does not show the key",
        came="the report shows it: " + next((x.strip() for x in ran.output.splitlines() if key[8:] in x), "")[:120],
        seen=ran,
    )


@check(
    "There is a remediation plan",
    chapter="19.7.1",
    needs={"tool"},
    hints=(
        "For what is found, the report says what to do.",
        "Give every kind of finding one sentence: move the key to the environment, add max_length, ...",
        'A table from the kind of finding to its fix, printed as "fix: ..." under each finding.',
    ),
)
def remediation_plan(tool: Tool) -> None:
    files = with_mistake('OPENAI_API_KEY = os.environ["OPENAI_API_KEY"]', f'OPENAI_API_KEY = "{secret()}"')
    news, ran = tool.news(files, SOUND)
    seen: Any = ran
    if not news:
        raise NotChecked("nothing was found, so there is nothing to plan")
    advice = r"fix|remed|recommend|should|solution|action|mitigat|\b(use|move|read|load|replace|rotate|revoke)\b"
    expect(
        bool(re.search(advice, ran.output, re.IGNORECASE)),
        when="an agent in whose agent.py the key is written down",
        expected="what to do about it (fix, recommendation, remediation: ...)",
        came=" | ".join(news)[:200],
        seen=seen,
    )
