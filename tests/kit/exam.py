"""`exam`: the checks are examined. Attempts three times over in shuffled order, and mutants of the reference.

The attempts run in every order because a verdict must not depend on what was checked before; once more near midnight
in another time zone, because some of them think in calendar minutes.
"""

from __future__ import annotations

import datetime
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chapter import EXERCISES, FOLDER, ROOT, Exercise
from tests.kit.app import Bench
from tests.kit.attempts import attempts
from tests.kit.contract import contract, reads_files
from tests.kit.judging import judge_target
from tests.kit.mutants import Mutant, mutants, reasons
from tests.kit.target import CannotRun, Target

ROUNDS = 3
ELSEWHERE = "Pacific/Chatham"  # UTC+12:45 or +13:45: neither the day nor the hour of anybody's test
MUTANT_S = 60.0


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
    every = mutants(exercise.path.read_text(encoding="utf-8"))
    excused = reasons(exercise.id)
    living = set()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool, Bench() as bench:
        for mutant, lives in zip(every, pool.map(lambda m: survives(exercise, m, bench), every), strict=True):
            if lives:
                living.add(mutant.name)
                reason = excused.get(mutant.name)
                print(f"  lives {mutant.name}\n        {reason or 'NO REASON GIVEN'}", flush=True)
    unexplained = living - set(excused)
    stale = set(excused) - living
    for name in sorted(stale):
        print(f"  STALE a reason for a mutant that is caught or gone: {name}")
    caught = len(every) - len(living)
    print(f"  {len(every)} mutants: {caught} caught, {len(living) - len(unexplained)} live with a reason", flush=True)
    return len(unexplained) + len(stale)


def survives(exercise: Exercise, mutant: Mutant, bench: Bench) -> bool:
    """Tell whether neither the unit tests nor the contract notice the mutant."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        file = Path(folder) / exercise.path.name
        file.write_text(mutant.source, encoding="utf-8")
        for beside in exercise.path.parent.glob(exercise.path.stem.removesuffix("_solution") + "_*"):
            if beside.suffix != ".py":  # a page, a vocabulary
                (Path(folder) / beside.name).write_bytes(beside.read_bytes())
        paths = f"import sys\nsys.path += [{str(ROOT)!r}, {str(FOLDER)!r}]\n"  # ours, after the mutant's folder
        (Path(folder) / "find_shared.py").write_text(paths, encoding="utf-8")
        if not _tests_pass(exercise, folder):
            return False
        if reads_files(contract(exercise.id)):
            return True  # its contract reads other files than the mutated one
        try:
            return not judge_target(bench, Target.parse(str(file)), contract(exercise.id)).missed
        except CannotRun:
            return False


def _tests_pass(exercise: Exercise, folder: str) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:randomly", "-p", "no:xdist"]
    command += ["-o", f"pythonpath={folder} . {FOLDER.relative_to(ROOT)}", f"tests/test_exercise_{exercise.module}.py"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=MUTANT_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
