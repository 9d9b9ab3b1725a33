"""The formats of a graded class, each held against its published schema, written here in our own words."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.kit.grading import formats, matrix
from tests.kit.grading.words import LONGEST, clean, scrubbed

EVIL = "](javascript:x) <script>alert(1)</script> ``` | **bold** ```` @everyone"
RESULT: dict[str, Any] = {
    "schema": "chapter-19/results/v2",
    "student": "Zoë <i>",
    "submission": "zoe.zip",
    "hash": "0123456789abcdef",
    "isolation": "none",
    "status": "graded",
    "reason": "",
    "notes": [EVIL],
    "exercises": [
        {
            "exercise": "19.2.3",
            "heading": "Add Rate Limiting",
            "target": "a_b.py",
            "contract": "0",
            "status": "graded",
            "reason": "",
            "notes": [],
            "found": [EVIL],
            "checks": [
                {"id": "a", "title": "A", "points": 1, "status": "met"},
                {
                    "id": "b",
                    "title": "B",
                    "points": 1,
                    "status": "missed",
                    "facts": {"when": "x", "expected": "y", "came": EVIL},
                },
                {"id": "c", "title": "C", "points": 1, "status": "not checked", "reason": "nobody can tell"},
            ],
        },
        {
            "exercise": "19.7.3",
            "heading": "Security Headers",
            "target": "b.py",
            "contract": "0",
            "status": "could not run",
            "reason": f"stopped\n{EVIL}",
            "notes": [],
            "found": [EVIL],
            "checks": [{"id": "d", "title": "D", "points": 1, "status": "could not run", "reason": f"stopped\n{EVIL}"}],
        },
    ],
}
REFUSED: dict[str, Any] = {**RESULT, "status": "refused", "reason": "the archive holds a link", "exercises": []}


@pytest.mark.parametrize("result", [RESULT, REFUSED], ids=["graded", "refused"])
def test_gradescope_reads_it(result: dict[str, Any]) -> None:
    document = formats.gradescope(result)
    known = {"score", "execution_time", "output", "output_format", "test_output_format", "test_name_format",
             "visibility", "stdout_visibility", "extra_data", "tests", "leaderboard"}  # fmt: skip
    of_a_test = {"score", "max_score", "status", "name", "name_format", "number", "output", "output_format", "tags",
                 "visibility", "extra_data"}  # fmt: skip
    assert set(document) <= known
    assert isinstance(document["score"], int)
    assert document["stdout_visibility"] in ("hidden", "after_due_date", "after_published", "visible")
    assert document["output_format"] == document["test_output_format"] == "text"  # never HTML, never Markdown
    for test in document["tests"]:
        assert set(test) <= of_a_test
        assert test.get("status", "passed") in ("passed", "failed")
        assert 0 <= test.get("score", 0) <= test["max_score"]


def test_gradescope_is_told_what_could_not_run() -> None:
    document = formats.gradescope(RESULT)
    met, missed, not_checked, could_not_run = document["tests"]
    assert (met["status"], met["score"], missed["status"], missed["score"]) == ("passed", 1, "failed", 0)
    for test, status in ((not_checked, "not checked"), (could_not_run, "could not run")):
        assert not {"status", "score"} & set(test)
        assert test["extra_data"] == {"status": status}
        assert test["name"].startswith(status.upper())
    assert document["output"] == "1 met, 1 missed, 1 not checked, 1 could not run"
    assert "refused: the archive holds a link" in formats.gradescope(REFUSED)["output"]


@pytest.mark.parametrize("status", ["met", "not checked"])
def test_what_the_chapter_does_not_ask_for_earns_nothing_and_costs_nothing(status: str) -> None:
    (exercise, _) = RESULT["exercises"]
    more = {"id": "e", "title": "E", "points": 0, "status": status, "reason": "more than the chapter asks"}
    result = {**RESULT, "exercises": [{**exercise, "checks": [*exercise["checks"], more]}]}
    for document, most in (
        (formats.gradescope(result), "max_score"),
        (formats.classroom50(result, 0.0, {}), "max-score"),
    ):
        assert document["score"] == 1
        assert sum(test[most] for test in document["tests"]) == 3
    assert "1 of 3 met" in formats.feedback(result)
    assert "1/3 (1 not checked)" in matrix.as_csv([result])


@pytest.mark.parametrize("result", [RESULT, REFUSED], ids=["graded", "refused"])
def test_classroom_50_reads_it(result: dict[str, Any]) -> None:
    document = formats.classroom50(result, 1_780_000_000.0, {})
    texts = {"classroom", "assignment", "owner", "submission", "commit", "release", "review", "datetime"}
    assert set(document) == texts | {"schema", "assignment_type", "score", "max-score", "tests"}
    assert document["schema"] == "classroom50/result/v1"
    assert document["assignment_type"] in ("individual", "group", "team")
    assert all(isinstance(document[name], str) and document[name] for name in texts)
    assert document["submission"].startswith("submit/")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ", document["datetime"])
    for part in (document, *document["tests"]):
        assert type(part["score"]) is int
        assert 0 <= part["score"] <= part["max-score"]
    assert document["score"] == sum(test["score"] for test in document["tests"])
    assert document["max-score"] == sum(test["max-score"] for test in document["tests"])
    for test in document["tests"]:
        assert test["test-name"]
        assert type(test["passed"]) is bool


def test_classroom_50_is_told_what_could_not_run_and_whose_it_is() -> None:
    names = {"CLASSROOM": "cs", "ASSIGNMENT": "ch19", "OWNER": "zoe", "SUBMISSION_TAG": "submit/1", "COMMIT_URL": "c"}
    document = formats.classroom50(RESULT, 0.0, names | {"RELEASE_URL": "r", "REVIEW_URL": "v"})
    assert document["tests"][3]["status"] == "could not run"
    assert document["tests"][3]["test-name"].startswith("could not run: ")
    given = [document[name] for name in ("classroom", "assignment", "owner", "submission", "commit", "release")]
    assert given == ["cs", "ch19", "zoe", "submit/1", "c", "r"]
    assert formats.classroom50(REFUSED, 0.0, {})["tests"][0]["status"] == "refused"


def test_junit_is_what_jenkins_and_pytest_agree_on() -> None:
    root = ElementTree.fromstring(matrix.as_junit([RESULT, REFUSED]))
    assert root.tag == "testsuites"
    assert not set(root.attrib) - {"name", "time", "tests", "failures", "errors"}
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests", "failures", "errors"} <= set(suite.attrib) <= {*suite.attrib, "skipped"}
        for case in suite:
            assert case.tag == "testcase"
            assert {"name"} <= set(case.attrib) <= {"name", "classname", "time", "group"}
            assert {child.tag for child in case} <= {"failure", "error", "skipped"}
            assert all(set(child.attrib) <= {"type", "message"} for child in case)
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[name]) == len(suite.findall(f"testcase/{tag}"))
        assert int(suite.attrib["tests"]) == len(suite)
    graded, refused = root
    assert [case[0].tag if len(case) else "" for case in graded] == ["", "failure", "skipped", "error"]
    assert refused[0][0].attrib == {"message": "the archive holds a link", "type": "could not run"}


def test_feedback_quotes_what_a_student_wrote() -> None:
    page = formats.feedback(RESULT)
    outside, fence = [], ""
    for line in page.splitlines():
        mark = re.match(r"\s*(`{3,})", line)
        if mark and (not fence or line.strip() == fence):
            fence = "" if fence else mark[1]
        elif not fence:
            outside.append(line)
    assert not fence
    kept = "\n".join(outside)
    assert "<script>" not in kept
    assert "](javascript" not in kept.replace("\\]", "")
    assert "**bold**" not in kept
    assert "# Zoë &lt;i&gt;" in kept
    assert "**could not run**" in kept
    assert "**FAIL** B" in kept


def test_the_csv_row_says_what_could_not_run() -> None:
    assert "1/3 (1 not checked),could not run" in matrix.as_csv([RESULT])
    assert "refused" in matrix.as_csv([REFUSED])


def test_the_check_that_most_students_missed_is_named() -> None:
    assert matrix.most_missed([RESULT, RESULT, REFUSED]) == "Most often missed (2 of 3 students): 19.2.3 B"
    assert matrix.most_missed([REFUSED]) == ""


def test_a_students_words_are_fit_for_terminals_and_xml() -> None:
    text = clean("\x1b[31mred\x1b[0m \x00\x07\u202egnp.exe \ud800 " + "x" * 5000)
    assert text.startswith("red ??")
    assert text.endswith(" ... (cut)")
    assert len(text) < LONGEST + 20
    ElementTree.fromstring(f"<a>{text}</a>")
    assert scrubbed({"a": ["/w/sub/x.py", 3]}, {"/w/sub": "", "/w": "(work)/"}) == {"a": ["x.py", 3]}
