"""`python -m tests COMMAND`: what the Makefile calls, and what people without make type."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable

from tests.chapter import FOLDER, ROOT, Exercise, NoSuchExercise, find

Run = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Run one command; exit status 0 fine, 1 something is not met, 2 nothing could be judged."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, does: str, run: Run, *, exercise: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=does, description=does)
        sub.set_defaults(run=run)
        if exercise:
            optional = "?" if exercise == "optional" else None
            sub.add_argument("exercise", metavar="EX", nargs=optional, help="19.2.3, 3_19_2 or a file's name")
        return sub

    command("list", "the 21 exercises and which are ready", list_exercises).add_argument(
        "--write", action="store_true", help="write the table and the transcripts into the READMEs as well"
    )
    command("demo", "every exercise that is ready, one after the other", demo)
    sub = command("run", "run one exercise", run_exercise, exercise="required")
    sub.add_argument("--serve", action="store_true", help="keep it up")
    sub.add_argument("--live", action="store_true", help="with the real API, capped, after asking; never in CI")
    command("serve", "all exercises in one service, with the stand-in model unless OFFLINE says otherwise", serve)
    sub = command("check", "check a solution: ours, or yours with --mine", check, exercise="required")
    sub.add_argument("--mine", metavar="FILE[:app]|URL", help="your file, or where your app runs")
    sub.add_argument("--key", default="", metavar="A[,B]", help="API keys that your app accepts")
    sub.add_argument("--replay", action="store_true", help="show the failing request as a command to paste")
    sub.add_argument("--watch", action="store_true", help="check again whenever a file changes")
    sub.add_argument("--live", action="store_true", help="with the real API, after asking; never in CI")
    sub.add_argument("--at", metavar="HH:MM:SS", help="let the app's clock start at this local time of today")
    sub = command("hint", "what to look at next; three levels", hint, exercise="required")
    sub.add_argument("--level", type=int, choices=(1, 2, 3), default=1)
    sub.add_argument("--check", metavar="ID", help="only this check")
    command("check-all", "references, attempts and unit tests; one table", check_all)
    sub = command("exam", "examine the checks: attempts three times over, and mutants", exam, exercise="optional")
    sub.add_argument("--seed", type=int, help="repeat one order")
    sub.add_argument("--only", choices=("attempts", "mutants"), help="one half of the exam")
    sub.add_argument("--rounds", type=int, default=3, help="how often the attempts are judged, and once near midnight")
    sub = command("grade", "grade a class: a folder that holds one folder or zip per student", grade_class)
    sub.add_argument("submissions", metavar="DIR", help="results go to DIR/_results; a second run goes on")
    sub.add_argument("--exercises", metavar="EX,EX", help="only these; a student's that are not there are named")
    sub.add_argument("--jobs", type=int, help="how many solutions at a time (default: one per core)")
    command("bench", "measure, side by side in one run", bench, exercise="required").add_argument(
        "--write", action="store_true", help="write the figures into the chapter's README"
    )
    command("freeze", "write anew what the image of 19.1.1 installs", freeze)
    command("containers", "build the images, run them hardened, measure them (needs Docker)", containers).add_argument(
        "--write", action="store_true", help="write the table into the chapter's README"
    )
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help()
        return 0
    try:
        return int(args.run(args))
    except NoSuchExercise as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def the(args: argparse.Namespace) -> Exercise:
    """Return the exercise that was named, if it is built."""
    exercise = find(args.exercise)
    if not exercise.built:
        raise NoSuchExercise(f"{exercise.id} ({exercise.heading}) is not ready yet; `list` shows which are")
    return exercise


def list_exercises(args: argparse.Namespace) -> int:
    """Print the table of the exercises; with --write, keep the READMEs in step."""
    from tests.kit import readme

    readme.print_table()
    if args.write:
        readme.write_tables()
        readme.write_transcripts()
    return 0


def demo(args: argparse.Namespace) -> int:
    """Run every exercise that is ready."""
    from tests.chapter import EXERCISES

    status = 0
    for exercise in EXERCISES:
        if exercise.built and exercise.path.suffix == ".py":
            print(f"\n=== {exercise.id} {exercise.heading} " + "=" * 40, flush=True)
            status |= subprocess.run([sys.executable, str(exercise.path)], check=False).returncode
    return 1 if status else 0


def run_exercise(args: argparse.Namespace) -> int:
    """Run one script as a reader would."""
    exercise = the(args)
    if exercise.path.suffix != ".py":
        print(f"{exercise.id} is not a script: read {exercise.path.relative_to(ROOT)}", file=sys.stderr)
        return 2
    command = [sys.executable, str(exercise.path), *(["--serve"] if args.serve else [])]
    if args.live:
        from tests.kit.live import run_live

        return run_live(command)
    return subprocess.run(command, check=False).returncode


def serve(args: argparse.Namespace) -> int:
    """Serve production/ as its README says; it asks for the stand-in model itself."""
    command = [sys.executable, "-m", "production"]
    return subprocess.run(command, cwd=FOLDER, env={"OFFLINE": "1"} | os.environ, check=False).returncode


def check(args: argparse.Namespace) -> int:
    """Judge one target and print the report."""
    from tests.kit.checking import check_and_watch, check_one

    if args.watch:
        return check_and_watch(the(args), args.mine, args.key, replay=args.replay, at=args.at)
    return check_one(the(args), args.mine, args.key, replay=args.replay, at=args.at, live=args.live)


def hint(args: argparse.Namespace) -> int:
    """Print the hints of one level."""
    from tests.kit.checking import print_hints

    return print_hints(the(args), args.level, args.check)


def check_all(args: argparse.Namespace) -> int:
    """Run everything that must pass, in parallel, and print one table."""
    from tests.kit.everything import run_everything

    return run_everything()


def exam(args: argparse.Namespace) -> int:
    """Examine the checks themselves."""
    from tests.kit.exam import run_exam

    return run_exam(find(args.exercise) if args.exercise else None, args.seed, args.only, args.rounds)


def grade_class(args: argparse.Namespace) -> int:
    """Grade the submissions of a class."""
    from pathlib import Path

    from tests.kit.grading.grade import grade

    wanted = [find(name).id for name in (args.exercises or "").split(",") if name]
    return grade(Path(args.submissions), args.jobs, wanted=wanted)


def bench(args: argparse.Namespace) -> int:
    """Run one benchmark."""
    from tests.kit.benching import run_bench

    return run_bench(args.exercise, write=args.write)


def freeze(args: argparse.Namespace) -> int:
    """Freeze the requirements of the image."""
    from tests.kit.freezing import freeze as freeze_requirements

    return freeze_requirements()


def containers(args: argparse.Namespace) -> int:
    """Build, check and measure the images."""
    from tests.kit.containers import run_containers

    return run_containers(write=args.write)


if __name__ == "__main__":
    raise SystemExit(main())
