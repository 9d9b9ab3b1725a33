"""What an instructor reads of a class: the matrix in CSV and Markdown, JUnit XML, and the check most often missed."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from xml.etree import ElementTree

from tests.chapter import EXERCISES
from tests.kit.grading.formats import checks, said, summary, text
from tests.kit.grading.results import COULD_NOT_RUN, Result, counts

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cells(result: Result) -> dict[str, str]:
    """Return what stands in a student's row, by exercise; nothing where nothing was handed in."""
    return {exercise["exercise"]: cell(exercise) for exercise in result["exercises"]}


def cell(exercise: Result) -> str:
    """Return "3/5", with what could not run or be checked; or what the exercise's status is instead."""
    met, total = counts(exercise)
    if exercise["status"] == "graded":
        unchecked = sum(check["status"] == "not checked" and check["points"] for check in exercise["checks"])
        return f"{met}/{total}" + (f" ({unchecked} not checked)" if unchecked else "")
    done = sum(check["status"] in ("met", "missed") for check in exercise["checks"])
    return str(exercise["status"]) + (f" after {met}/{done}" if done else "")


def columns(results: Iterable[Result]) -> list[str]:
    """Return the exercises that anybody handed in."""
    seen = {exercise["exercise"] for result in results for exercise in result["exercises"]}
    return [exercise.id for exercise in EXERCISES if exercise.id in seen]


def as_csv(results: list[Result]) -> str:
    """Write the matrix for a spreadsheet; a cell that a spreadsheet would take for a formula gets a quote before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    names = columns(results)
    writer.writerow(["student", "submission", "status", "met", *names, "remark"])
    for result in results:
        by_exercise = cells(result)
        met = sum(counts(exercise)[0] for exercise in result["exercises"])
        row = [result["student"], result["submission"], result["status"], str(met)]
        writer.writerow([_safe(c) for c in (*row, *(by_exercise.get(name, "") for name in names), _remark(result))])
    return out.getvalue()


def _safe(words: str) -> str:
    words = " ".join(words.split())
    return f"'{words}" if words.startswith(FORMULA) else words


def _remark(result: Result) -> str:
    notes = [*result["notes"], *(f"{e['exercise']}: {note}" for e in result["exercises"] for note in e["notes"])]
    notes += [f"{e['exercise']} {e['status']}: {e['reason']}" for e in result["exercises"] if e["reason"]]
    return "; ".join(([result["reason"]] if result["reason"] else []) + notes)


def as_markdown(results: list[Result], others: list[str], isolation: str) -> str:
    """Write the matrix as a table, then what needs a person's eyes."""
    names = columns(results)
    rows = [["student", *names], ["---"] * (len(names) + 1)]
    for result in results:
        by_exercise = cells(result)
        rows.append([text(result["student"]), *(by_exercise.get(name, "") for name in names)])
    lines = ["# The class", "", *("| " + " | ".join(row) + " |" for row in rows), ""]
    lines += [f"{worst}", ""] if (worst := most_missed(results)) else []
    looks = [f"- {text(result['student'])}: {text(_remark(result))}" for result in results if _remark(result)]
    looks += [f"- not a submission (neither a folder nor a zip): {text(name)}" for name in others]
    lines += ["## Look at these yourself", "", *looks, ""] if looks else []
    return "\n".join([*lines, f"How submissions were contained: {isolation}."]) + "\n"


def most_missed(results: list[Result]) -> str:
    """Name the check that most students missed."""
    missed = Counter(
        f"{exercise['exercise']} {check['title']}"
        for result in results
        for exercise, check in checks(result)
        if check["status"] == "missed"
    )
    if not missed:
        return ""
    most = max(missed.values())
    title = min(name for name, count in missed.items() if count == most)
    return f"Most often missed ({most} of {len(results)} students): {title}"


def as_junit(results: list[Result]) -> str:
    """Write JUnit XML (pytest's and Jenkins' reading, junit-10.xsd): missed is a failure, not checked is skipped.

    What could not run is an error: in that schema's words `errors` counts it, and `error` is what every reader knows.
    """
    root = ElementTree.Element("testsuites", name="chapter 19")
    for result in results:
        suite = ElementTree.SubElement(root, "testsuite", name=result["student"] or "?")
        count: Counter[str] = Counter()
        for exercise, check in checks(result):
            case = ElementTree.SubElement(suite, "testcase", classname=exercise["exercise"], name=check["title"])
            kind = {"missed": "failure", "not checked": "skipped", COULD_NOT_RUN: "error"}.get(check["status"])
            count[kind or "passed"] += 1
            if kind:
                first = (check.get("facts", {}).get("expected") or check.get("reason") or " ").splitlines()[0]
                ElementTree.SubElement(case, kind, message=first, type=check["status"]).text = said(check)
        if result["status"] != "graded":
            case = ElementTree.SubElement(suite, "testcase", classname="submission", name=result["status"])
            ElementTree.SubElement(case, "error", message=result["reason"], type=COULD_NOT_RUN).text = summary(result)
            count["error"] += 1
        suite.set("tests", str(sum(count.values())))
        for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(name, str(count[kind]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"
