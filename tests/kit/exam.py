"""`exam`: the checks are examined. Attempts three times over in shuffled order, and mutants of the reference.

The attempts run in every order because a verdict must not depend on what was checked before; once more near midnight
in another time zone, because some of them think in calendar minutes. All of it runs in several processes, each with a
stand-in model of its own: what one tells its model to do wrong, no other notices.
"""

from __future__ import annotations

import ast
import datetime
import functools
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.chapter import EXERCISES, FOLDER, ROOT, Exercise, find
from tests.kit.app import Bench
from tests.kit.attempts import Attempt, attempts
from tests.kit.contract import Form, contract, form
from tests.kit.judging import judge_target
from tests.kit.mutants import Mutant, mutants, reasons
from tests.kit.target import CannotRun, Target
from tests.kit.warm import WarmPytest

EAST = datetime.timezone(datetime.timedelta(hours=12, minutes=45))  # neither the day nor the hour of anybody's test
EAST_TZ = "<+1245>-12:45"  # the same as POSIX writes it
MUTANT_S = 120.0
CORES = os.cpu_count() or 1


def run_exam(exercise: Exercise | None, seed: int | None, half: str | None, rounds: int) -> int:
    """Examine one exercise or all of them; returns 1 when anything is not as declared."""
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}", flush=True)
    chosen = [exercise] if exercise else [each for each in EXERCISES if each.built]
    wrong = 0
    if half != "mutants":
        found = [attempt for each in chosen for attempt in attempts(each.id)]
        wrong += examine_attempts(found, rounds, random.Random(seed))
    if half != "attempts":
        wrong += sum(examine_mutants(each) for each in chosen if each.path.suffix == ".py")
    print("\nall as declared" if not wrong else f"\n{wrong} not as declared")
    return 1 if wrong else 0


# ---------------------------------------------------------------- attempts


@dataclass(frozen=True)
class Turn:
    """One attempt in one round: the order of its checks, and whether it is near midnight."""

    attempt: Attempt
    seed: int
    near_midnight: bool


def examine_attempts(found: list[Attempt], rounds: int, order: random.Random) -> int:
    """Judge all attempts in every round; returns how many verdicts were not as declared."""
    turns = [
        Turn(attempt, order.randrange(10**9), number == rounds)
        for number in range(rounds + 1)
        for attempt in order.sample(found, len(found))
    ]
    wrong = 0
    began = time.monotonic()
    with _workers(2 * CORES) as pool:  # most of the time an attempt is waited for
        for done, (turn, missed) in enumerate(zip(turns, pool.map(missed_in, turns), strict=True), 1):
            if turn.attempt.counted(missed) != turn.attempt.must_fail:
                wrong += 1
                print(f"  WRONG {turn.attempt}: missed {sorted(missed)}, declares {sorted(turn.attempt.must_fail)}")
            if done % len(found) == 0:
                number = done // len(found)
                name = f"round {number}" if number <= rounds else "near midnight, far in the east"
                so_far = f"{wrong} not as declared so far, {time.monotonic() - began:.0f} s"
                print(f"  {name}: {len(found)} attempts, {so_far}", flush=True)
    return wrong


def missed_in(turn: Turn) -> set[str]:
    """Judge an attempt in a worker; returns the ids of the checks it missed."""
    checks = contract(turn.attempt.exercise)
    at = None
    if turn.near_midnight:
        tomorrow = datetime.datetime.now(EAST) + datetime.timedelta(days=1)
        at = tomorrow.replace(hour=23, minute=59, second=50).timestamp()
    zone = os.environ.pop("TZ", None)
    try:
        if turn.near_midnight or zone is not None:
            os.environ["TZ"] = EAST_TZ if turn.near_midnight else str(zone)
        target = Target.parse(str(turn.attempt.path), form=form(checks))
        return judge_target(_bench(), target, checks, at=at, shuffle=random.Random(turn.seed)).missed
    except CannotRun as error:
        return {f"cannot run: {error}"}
    finally:
        os.environ.pop("TZ", None)
        if zone is not None:
            os.environ["TZ"] = zone


# ---------------------------------------------------------------- mutants


@dataclass(frozen=True)
class Fault:
    """A mutant of one module of an exercise, and how long its tests may take."""

    exercise: str
    module: Path
    mutant: Mutant
    patience_s: float

    @property
    def name(self) -> str:
        """What the list of survivors calls it."""
        script = find(self.exercise).path
        return self.mutant.name if self.module == script else f"{self.module.name}: {self.mutant.name}"


def examine_mutants(exercise: Exercise) -> int:
    """Run the unit tests and then the contract against every mutant; returns how many live without a reason."""
    print(f"\n{exercise.id} {exercise.heading}", flush=True)
    with _workers(CORES) as pool:
        began = time.monotonic()
        if not pool.submit(tests_pass, exercise, FOLDER, MUTANT_S).result():
            print("  the unit tests fail as they are: no mutant can be told from that")
            return 1
        patience_s = 10 + 4 * (time.monotonic() - began)
        faults = [
            Fault(exercise.id, module, mutant, patience_s)
            for module in modules(exercise)
            for mutant in mutants(module.read_text(encoding="utf-8"))
        ]
        excused, living = reasons(exercise.id), set()
        for fault, lives in zip(faults, pool.map(survives, faults), strict=True):
            if lives:
                living.add(fault.name)
                print(f"  lives {fault.name}\n        {excused.get(fault.name) or 'NO REASON GIVEN'}", flush=True)
    unexplained = living - set(excused)
    stale = set(excused) - living
    for name in sorted(stale):
        print(f"  STALE a reason for a mutant that is caught or gone: {name}")
    caught = len(faults) - len(living)
    print(f"  {len(faults)} mutants: {caught} caught, {len(living) - len(unexplained)} live with a reason", flush=True)
    return len(unexplained) + len(stale)


@functools.cache
def modules(exercise: Exercise) -> list[Path]:
    """Return the exercise's script and the modules beside it that it is made of."""
    found, queue = [], [exercise.path]
    while queue:
        module = queue.pop()
        if module not in found and module.name != "find_shared.py":
            found.append(module)
            tree = ast.parse(module.read_text(encoding="utf-8"))
            names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
            names |= {
                f"{node.module}.{alias.name}"
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            beside = (FOLDER / (name.replace(".", "/") + ".py") for name in sorted(names))
            queue += [file for file in beside if file.is_file()]
    return found


def survives(fault: Fault) -> bool:
    """Tell, in a worker, whether neither the unit tests nor the contract notice a fault."""
    exercise = find(fault.exercise)
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "production"))
        (folder / fault.module.relative_to(FOLDER)).write_text(fault.mutant.source, encoding="utf-8")
        paths = f"import sys\nsys.path += [{str(ROOT)!r}]\n"
        (folder / "find_shared.py").write_text(paths, encoding="utf-8")
        if not tests_pass(exercise, folder, fault.patience_s):
            return False
        checks = contract(exercise.id)
        if form(checks) is not Form.APP:
            return True  # its contract reads other files than the mutated one
        try:
            target = Target.parse(str(folder / exercise.path.name))
            return not judge_target(_bench(), target, checks, to_the_end=False).missed
        except CannotRun:
            return False


def tests_pass(exercise: Exercise, folder: Path, patience_s: float) -> bool:
    """Run, in a worker, the tests of the exercise and of the modules beside it against the modules in a folder."""
    named = [f"exercise_{exercise.module}", *(module.stem for module in modules(exercise)[1:])]
    files = [f"tests/test_{name}.py" for name in named if (ROOT / f"tests/test_{name}.py").is_file()]
    return _pytest().passes(["-o", f"pythonpath={folder} .", *files], timeout_s=patience_s)


# ---------------------------------------------------------------- workers


def _workers(count: int) -> ProcessPoolExecutor:
    """Return processes that each make a bench and a warm pytest of their own, when they first need them."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


@functools.cache
def _bench() -> Bench:
    return Bench()


@functools.cache
def _pytest() -> WarmPytest:
    return WarmPytest()
