"""What becomes of one student's result elsewhere: Gradescope, Classroom 50, and a page to read.

"Could not run" has no place of its own in either service: there it is a test without a status (Gradescope) or a test
that carries `status` beside `passed` (Classroom 50), says so in its name, and the total names how many there are.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.kit.grading.results import COULD_NOT_RUN, Result, counts

WORDS = {"met": "ok", "missed": "FAIL", "not checked": "--", COULD_NOT_RUN: "could not run", "pending": "..."}


def checks(result: Result) -> Iterator[tuple[Result, Result]]:
    """Yield every check with its exercise."""
    for exercise in result["exercises"]:
        for check in exercise["checks"]:
            yield exercise, check


def summary(result: Result) -> str:
    """Count in one line; anything that was not graded comes first."""
    statuses = [check["status"] for _, check in checks(result)]
    count = {status: statuses.count(status) for status in WORDS}
    told = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    return f"{result['status']}: {result['reason']}" if result["status"] != "graded" else told


def said(check: Result) -> str:
    """Return why a check is not met: the facts, or the reason."""
    facts = "\n".join(f"{name:<10}{text}" for name, text in check.get("facts", {}).items())
    return facts or check.get("reason", "")


def gradescope(result: Result) -> Result:
    """Write Gradescope's `results.json` (gradescope-autograders.readthedocs.io, "Output format")."""
    tests = []
    for exercise, check in checks(result):
        test: Result = {
            "name": f"{exercise['exercise']} {check['title']}",
            "max_score": check["points"],
            "output": said(check),
            "extra_data": {"status": check["status"]},
        }
        if check["status"] in ("met", "missed"):
            test |= {
                "score": check["points"] if check["status"] == "met" else 0,
                "status": "passed" if check["status"] == "met" else "failed",
            }
        else:
            test["name"] = f"{check['status'].upper()}: {test['name']}"
        tests.append(test)
    return {
        "score": sum(counts(exercise)[0] for exercise in result["exercises"]),
        "output": summary(result),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "stdout_visibility": "hidden",
        "extra_data": {"status": result["status"]},
        "tests": tests,
    }


def classroom50(result: Result, submitted: float, environment: Mapping[str, str] = os.environ) -> Result:
    """Write Classroom 50's `result/v1` (foundation50/classroom50, schemas/result-v1.schema.json).

    Whose repository it is comes from its runner's variables; without them from the submission's name.
    """
    when = datetime.datetime.fromtimestamp(submitted, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tests = []
    for exercise, check in checks(result):
        met = check["status"] == "met"
        words = "" if check["status"] in ("met", "missed") else f"{check['status']}: "
        name = f"{words}{exercise['exercise']} {check['title']}"
        told = {"status": check["status"], "message": said(check)}
        points = check["points"]
        tests.append({"test-name": name, "passed": met, "score": points if met else 0, "max-score": points, **told})
    if result["status"] != "graded":
        told = {"status": result["status"], "message": result["reason"]}
        tests.append({"test-name": summary(result), "passed": False, "score": 0, "max-score": 0, **told})

    def given(name: str, otherwise: str) -> str:
        return environment.get(name) or otherwise

    commit = given("COMMIT_URL", "not on a Git host")
    return {
        "schema": "classroom50/result/v1",
        "classroom": given("CLASSROOM", "classroom"),
        "assignment": given("ASSIGNMENT", "chapter-19"),
        "assignment_type": given("ASSIGNMENT_TYPE", "individual"),
        "owner": given(
            "OWNER", given("USERNAME", result["student"]) if "CLASSROOM" in environment else result["student"]
        ),
        "submission": given("SUBMISSION_TAG", f"submit/{when.replace(':', '-')}-{result['hash'][:7]}"),
        "commit": commit,
        "release": given("RELEASE_URL", commit),
        "review": given("REVIEW_URL", commit),
        "datetime": when,
        "score": sum(test["score"] for test in tests),
        "max-score": sum(test["max-score"] for test in tests),
        "tests": tests,
    }


def feedback(result: Result) -> str:
    """Write the page that a student reads. What comes from the submission is quoted, never Markdown or HTML."""
    lines = [f"# {text(result['student'])}", "", f"{text(summary(result))}", ""]
    lines += [line for note in result["notes"] for line in (f"- {text(note)}",)]
    for exercise in result["exercises"]:
        met, total = counts(exercise)
        lines += ["", f"## {exercise['exercise']} {exercise['heading']}", ""]
        lines += [f"{text(exercise['target'])}: {met} of {total} met", ""]
        if exercise["reason"]:
            lines += [f"**{exercise['status']}**", "", *fenced(exercise["reason"]), ""]
        lines += [f"- note: {text(note)}" for note in (*exercise["found"], *exercise["notes"])]
        for check in exercise["checks"]:
            lines.append(f"- **{WORDS[check['status']]}** {text(check['title'])}")
            if check["status"] in ("missed", "not checked") and said(check):
                lines += ["", *("  " + line for line in fenced(said(check))), ""]
        if any(check["status"] == "missed" for check in exercise["checks"]):
            lines += ["", f"What to look at next: `make hint EX={exercise['exercise']}`"]
    return "\n".join(lines).rstrip() + "\n"


def text(words: Any) -> str:
    """Return words as text of one line, whatever Markdown or HTML they look like."""
    one_line = " ".join(str(words).split())
    escaped = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b")
    return re.sub(r"([\\`*_\[\]|~]|^[#+=-])", r"\\\1", escaped)


def fenced(words: str) -> list[str]:
    """Return words as a code block that they cannot leave."""
    longest = max((len(run) for run in re.findall(r"`+", words)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *words.splitlines(), fence]
