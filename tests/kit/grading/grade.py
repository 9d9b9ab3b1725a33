"""`grade DIR`: judge every submission of a class, write the results after every check, go on where it was left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.chapter import ROOT
from tests.kit.grading import formats, matrix
from tests.kit.grading.isolation import Isolation, best, environment
from tests.kit.grading.layout import read_layout
from tests.kit.grading.results import Result, blank, finish, keep, load, write
from tests.kit.grading.submissions import RESULTS, Submission, take_in
from tests.kit.grading.words import clean

EXERCISE_S = 120.0
GRACE_S = 20.0


def grade(
    folder: Path, jobs: int | None = None, isolation: Isolation | None = None, wanted: Collection[str] = ()
) -> int:
    """Grade a class, in the exercises `wanted` or in all; returns 0 when it is done, 2 with nothing to grade."""
    if not folder.is_dir():
        print(f"no such folder: {folder}\nSUBMISSIONS takes the folder that holds one folder or zip per student")
        return 2
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended, and copies removed
    isolation = isolation or best()
    print(f"contained by {isolation.words}", flush=True)
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as stage:
        submissions, others = take_in(folder, Path(stage).resolve())
        if not submissions:
            print(f"{folder} holds no submission: one folder or zip per student")
            return 2
        marking = Class(folder / RESULTS, submissions, others, isolation, wanted)
        marking.run(jobs or os.cpu_count() or 1)
    marking.close()
    return 0


class Class:
    """The results of a class, as they grow."""

    def __init__(
        self,
        out: Path,
        submissions: list[Submission],
        others: list[str],
        isolation: Isolation,
        wanted: Collection[str],
    ) -> None:
        self._out, self._submissions, self._others, self._isolation = out, submissions, others, isolation
        self._lock = threading.RLock()
        self._running: set[subprocess.Popen[str]] = set()
        self._results: list[Result] = []
        self._kept = 0
        self._interrupted = False
        for submission in submissions:
            result = blank(submission, read_layout(submission.folder), isolation.words, wanted)
            self._kept += keep(load(out / submission.key / "results.json"), result)
            self._results.append(result)

    def run(self, jobs: int) -> None:
        """Grade what is pending, several at a time; nothing that was started outlives this."""
        todo = [
            (submission, result, exercise)
            for submission, result in zip(self._submissions, self._results, strict=True)
            for exercise in result["exercises"]
            if exercise["status"] == "pending"
        ]
        counted = f"solutions to grade: {len(todo)}, unchanged since they were graded: {self._kept}"
        print(f"submissions: {len(self._submissions)}, {counted}\n", flush=True)
        for submission, result in zip(self._submissions, self._results, strict=True):
            self._save(submission, result)
        self._save_class()
        done = 0

        def one(task: tuple[Submission, Result, Result]) -> None:
            nonlocal done
            submission, result, exercise = task
            if self._interrupted:
                return
            self._grade(submission, result, exercise)
            with self._lock:
                done += 1
                self._say(
                    f"[{done:>3}/{len(todo)}] {result['student']}  {exercise['exercise']}  {matrix.cell(exercise)}"
                )

        pool = ThreadPoolExecutor(jobs)
        try:
            for future in [pool.submit(one, task) for task in todo]:
                future.result()
        except BaseException:
            self._interrupted = True
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(self._running):
                end(process)
            pool.shutdown()

    def _grade(self, submission: Submission, result: Result, exercise: Result) -> None:
        job = {
            "exercise": exercise["exercise"],
            "target": exercise["target"],
            "folder": str(submission.folder),
            "seconds": EXERCISE_S,
        }
        by_id = {check["id"]: check for check in exercise["checks"]}
        stopped = "the checker ended before it was done"

        def hear(facts: dict[str, Any]) -> None:
            nonlocal stopped
            if "check" in facts:
                by_id[facts["check"]].update({k: facts[k] for k in ("status", "reason", "facts") if facts.get(k)})
            elif "note" in facts:
                exercise["notes"].append(facts["note"])
            elif "found" in facts:
                exercise["found"].append(facts["found"])
            elif "stopped" in facts:
                stopped = facts["stopped"]
            elif stopped.startswith("the checker"):
                stopped = ""
            with self._lock:
                self._save(submission, result)
                self._save_class()

        why = self._work(job, hear)
        with self._lock:
            if self._interrupted:  # it stays pending: the next run begins it anew
                return
            finish(exercise, f"{stopped}\n{why}".strip() if stopped.startswith("the checker") else stopped)
            self._save(submission, result)
            self._save_class()

    def _work(self, job: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> str:
        """Run one worker; returns the last words of one that failed."""
        with (
            self._isolation.work(Path(job["folder"]).parent) as work,
            tempfile.TemporaryFile("w+", errors="replace") as errors,
        ):
            process = subprocess.Popen(
                self._isolation.command(job, work), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                text=True, encoding="utf-8", cwd=ROOT, env=environment(),
            )  # fmt: skip
            assert process.stdin and process.stdout
            self._running.add(process)
            deadline = threading.Timer(EXERCISE_S + GRACE_S, end, (process,))
            deadline.start()
            try:
                for line in process.stdout:
                    hear(json.loads(line))
                process.wait()
            finally:
                deadline.cancel()
                end(process)
                process.wait()
                process.stdout.close()
                self._running.discard(process)
            errors.seek(0)
            return clean("".join(errors.readlines()[-1:]).strip())

    def _save(self, submission: Submission, result: Result) -> None:
        folder = self._out / submission.key
        submitted = submission.handed_in.stat().st_mtime
        for name, document in (
            ("gradescope.json", formats.gradescope(result)),
            ("classroom50.json", formats.classroom50(result, submitted)),
            ("results.json", result),
        ):
            write(folder / name, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        write(folder / "feedback.md", formats.feedback(result))

    def _save_class(self) -> None:
        write(self._out / "matrix.csv", matrix.as_csv(self._results))
        write(self._out / "matrix.md", matrix.as_markdown(self._results, self._others, self._isolation.words))
        write(self._out / "junit.xml", matrix.as_junit(self._results))

    def close(self) -> None:
        """Say what came of it, here and in the step summary of a GitHub workflow."""
        table = matrix.as_markdown(self._results, self._others, self._isolation.words)
        self._say("\n" + as_table(self._results))
        if worst := matrix.most_missed(self._results):
            self._say("\n" + worst)
        for result in self._results:
            if result["status"] != "graded":
                self._say(f"look yourself: {result['student']}: {formats.summary(result)}")
        for name in self._others:
            self._say(f"look yourself: {name} is no submission (neither a folder nor a zip)")
        self._say(f"\nin {self._out}: matrix.csv, matrix.md, junit.xml, and a folder for each student")
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(table)

    def _say(self, words: str) -> None:
        print(words.encode("ascii", "backslashreplace").decode(), flush=True)


def end(worker: subprocess.Popen[str]) -> None:
    """End a worker; one that is just being started hears no signal in its namespace, but finds its input closed."""
    worker.terminate()
    assert worker.stdin
    worker.stdin.close()


def as_table(results: list[Result]) -> str:
    """Return the matrix in columns for a terminal."""
    names = matrix.columns(results)
    rows = [["", *names]]
    for result in results:
        by_exercise = matrix.cells(result)
        row = [by_exercise.get(name, "") for name in names]
        rows.append([result["student"][:24], *(cell.replace("could not run", "no run") for cell in row)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
