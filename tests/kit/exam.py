"""`exam`: the checks are examined. Attempts three times over in shuffled order, and mutants of the reference.

The attempts run in every order because a verdict must not depend on what was checked before; once more near midnight
in another time zone, because some of them think in calendar minutes.
"""

from __future__ import annotations

import ast
import datetime
import functools
import os
import random
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chapter import EXERCISES, FOLDER, ROOT, Exercise
from tests.kit.app import Bench
from tests.kit.attempts import attempts
from tests.kit.contract import contract, reads_files
from tests.kit.judging import judge_target
from tests.kit.mutants import Mutant, mutants, reasons
from tests.kit.target import CannotRun, Target
from tests.kit.warm import WarmPytest

ROUNDS = 3
ELSEWHERE = "Pacific/Chatham"  # UTC+12:45 or +13:45: neither the day nor the hour of anybody's test
MUTANT_S = 120.0


def run_exam(exercise: Exercise | None, seed: int | None, half: str | None) -> int:
    """Examine one exercise or all of them; returns 1 when anything is not as declared."""
    seed = random.randrange(10**6) if seed is None else seed
    print(f"seed {seed}")
    wrong = 0
    for each in [exercise] if exercise else [e for e in EXERCISES if e.built]:
        print(f"\n{each.id} {each.heading}", flush=True)
        if half != "mutants":
            wrong += examine_attempts(each, random.Random(seed))
        if half != "attempts" and each.path.suffix == ".py":
            wrong += examine_mutants(each)
    print("\nall as declared" if not wrong else f"\n{wrong} not as declared")
    return 1 if wrong else 0


def examine_attempts(exercise: Exercise, order: random.Random) -> int:
    """Judge all attempts in every round; returns how many verdicts were not as declared."""
    wrong = 0
    checks, found = contract(exercise.id), attempts(exercise.id)
    for number in range(ROUNDS + 1):
        near_midnight = number == ROUNDS
        at, zone = None, os.environ.get("TZ")
        if near_midnight:
            os.environ["TZ"] = ELSEWHERE
            tomorrow = datetime.datetime.now().astimezone() + datetime.timedelta(days=1)
            at = tomorrow.replace(hour=23, minute=59, second=50).timestamp()
        with Bench() as bench:
            for attempt in order.sample(found, len(found)):
                try:
                    target = Target.parse(str(attempt.path), documents=reads_files(checks))
                    missed = judge_target(bench, target, checks, at=at, shuffle=order).missed
                except CannotRun as error:
                    missed = {f"cannot run: {error}"}
                if missed != attempt.must_fail:
                    wrong += 1
                    print(f"  WRONG {attempt}: missed {sorted(missed)}, declares {sorted(attempt.must_fail)}")
        if near_midnight:
            os.environ.pop("TZ")
            if zone is not None:
                os.environ["TZ"] = zone
        name = f"near midnight in {ELSEWHERE}" if near_midnight else f"round {number + 1}"
        print(f"  {name}: {len(found)} attempts, {wrong} not as declared so far", flush=True)
    return wrong


def examine_mutants(exercise: Exercise) -> int:
    """Run the unit tests and then the contract against every mutant; returns how many live without a reason."""
    every = [(module, mutant) for module in modules(exercise) for mutant in mutants(module.read_text(encoding="utf-8"))]
    excused = reasons(exercise.id)
    living = set()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, Bench() as bench, WarmPytest() as pytest:
        began = time.monotonic()
        if not tests_pass(exercise, FOLDER, pytest, MUTANT_S):
            print("  the unit tests fail as they are: no mutant can be told from that")
            return 1
        patience_s = 10 + 4 * (time.monotonic() - began)

        def lives(place: tuple[Path, Mutant]) -> bool:
            return survives(exercise, *place, bench, pytest, patience_s)

        for (module, mutant), alive in zip(every, pool.map(lives, every), strict=True):
            if alive:
                name = mutant.name if module == exercise.path else f"{module.name}: {mutant.name}"
                living.add(name)
                reason = excused.get(name)
                print(f"  lives {name}\n        {reason or 'NO REASON GIVEN'}", flush=True)
    unexplained = living - set(excused)
    stale = set(excused) - living
    for name in sorted(stale):
        print(f"  STALE a reason for a mutant that is caught or gone: {name}")
    caught = len(every) - len(living)
    print(f"  {len(every)} mutants: {caught} caught, {len(living) - len(unexplained)} live with a reason", flush=True)
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


def survives(
    exercise: Exercise, module: Path, mutant: Mutant, bench: Bench, pytest: WarmPytest, patience_s: float
) -> bool:
    """Tell whether neither the unit tests nor the contract notice the mutant of a module."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "production"))
        (folder / module.relative_to(FOLDER)).write_text(mutant.source, encoding="utf-8")
        paths = f"import sys\nsys.path += [{str(ROOT)!r}]\n"
        (folder / "find_shared.py").write_text(paths, encoding="utf-8")
        if not tests_pass(exercise, folder, pytest, patience_s):
            return False
        checks = contract(exercise.id)
        if reads_files(checks):
            return True  # its contract reads other files than the mutated one
        try:
            target = Target.parse(str(folder / exercise.path.name))
            return not judge_target(bench, target, checks, to_the_end=False).missed
        except CannotRun:
            return False


def tests_pass(exercise: Exercise, folder: Path, pytest: WarmPytest, patience_s: float) -> bool:
    """Run the unit tests of the exercise, and those of the modules beside it, against the modules in a folder."""
    named = [f"exercise_{exercise.module}", *(module.stem for module in modules(exercise)[1:])]
    files = [f"tests/test_{name}.py" for name in named if (ROOT / f"tests/test_{name}.py").is_file()]
    return pytest.passes(["-o", f"pythonpath={folder} .", *files], timeout_s=patience_s)
