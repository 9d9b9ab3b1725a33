"""The check kit itself: what cannot be judged says so in the learner's words, and a failure teaches."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.__main__ import main as command
from tests.chapter import ROOT
from tests.kit import report
from tests.kit.app import App, Bench, Manner
from tests.kit.attempts import Attempt
from tests.kit.contract import Check, Missed, Verdict, contract, for_its_author, judge
from tests.kit.judging import judge_target
from tests.kit.mutants import mutants
from tests.kit.target import CannotRun, Target
from tests.kit.tool import Tool

BROKEN = ROOT / "tests" / "attempts" / "broken"
ACCEPTED = ROOT / "tests" / "attempts" / "19.2.3" / "accepted"
REJECTED = ROOT / "tests" / "attempts" / "19.2.3" / "rejected"
CHECKS = contract("19.2.3")

CANNOT = {
    "app_named_api.py": r"no FastAPI object named 'app' in app_named_api.py; found: api\.\nSay which one: MINE=\S+:api",
    "crash_at_startup.py": r"failed while starting up:\n(.*\n)*.*no database at 127\.0\.0\.1:5432",
    "exit_0_at_import.py": r"ended the program at line 10 \(exit 0\)",
    "factory_make_app.py": r"found the factory make_app\(\)\.\nSay so: MINE=\S+:make_app",
    "hard_exit_3_at_import.py": r"ended \(exit status 3\) before the app was up",
    "model_not_reachable.py": r"is answered 500(.*\n)*.*model",
    "no_app.py": r"no FastAPI object named 'app' in no_app.py, and no other app or factory",
    "no_chat_endpoint.py": r"POST /v1/chat is a 404; found: GET /health, GET /limits",
    "no_key_works.py": r"no key of ours is accepted(.*\n)+.*KEY=key-a,key-b",
    "package_not_installed.py": r"stopped at line 3: the package langchain_openai is not installed\.\nInstall it",
    "syntax_error.py": r"not valid Python at line 18: expected ':'",
    "uvicorn_run_at_module_level.py": r"uvicorn\.run at line 42\)\.\nPut it under: if __name__",
    "value_error_at_import.py": r"stopped at line 10: ValueError: DATABASE_URL is required",
}
SLOWLY = {
    "endless_loop_at_import.py": r"still busy after 2 s, at line (19|20)",
    "startup_never_ends.py": r"still busy after 2 s: does something wait or loop while it is started",
}
HANGS = ("handler_hangs.py", "handler_blocks_the_loop.py", "handler_sleeps_an_hour.py")
FINE = ("not_utf8_output.py", "ten_megabytes_of_log.py")


@pytest.fixture
def at_hand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command `check` judge on the bench that is up already."""
    monkeypatch.setattr("tests.kit.app.Bench", lambda: contextlib.nullcontext(bench))


def test_every_broken_file_has_a_test() -> None:
    assert {path.name for path in BROKEN.glob("*.py")} == {*CANNOT, *SLOWLY, *HANGS, *FINE}


@pytest.mark.parametrize(("name", "words"), CANNOT.items(), ids=CANNOT)
def test_what_cannot_be_judged_says_why(name: str, words: str, bench: Bench) -> None:
    with pytest.raises(CannotRun, match=words):
        judge_target(bench, Target.parse(str(BROKEN / name)), CHECKS)


@pytest.mark.parametrize(("name", "words"), SLOWLY.items(), ids=SLOWLY)
def test_what_never_gets_ready_says_where(name: str, words: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_patience_s", 2)
    with pytest.raises(CannotRun, match=words):
        bench.open(Target.parse(str(BROKEN / name)))


@pytest.mark.parametrize("name", HANGS)
def test_a_handler_that_hangs_is_waited_for_only_so_long(
    name: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.kit.app.ANSWER_S", 1.0)
    with pytest.raises(CannotRun, match="POST /v1/chat gave no answer within 1 s"):
        bench.open(Target.parse(str(BROKEN / name)))


@pytest.mark.parametrize("name", FINE)
def test_odd_output_does_not_matter(name: str, bench: Bench) -> None:
    judged = judge_target(bench, Target.parse(str(BROKEN / name)), CHECKS)
    assert {verdict.status for verdict in judged.verdicts} == {"met"}


def test_a_real_key_in_a_dotenv_that_overrides_cannot_reach_the_network(tmp_path: Path, bench: Bench) -> None:
    shutil.copy(BROKEN / "real_key" / "my_app.py", tmp_path)
    shutil.copy(BROKEN / "real_key" / "dotenv", tmp_path / ".env")
    with pytest.raises(CannotRun, match=r"It tried to reach api\.openai\.com, which the checks block"):
        bench.open(Target.parse(str(tmp_path / "my_app.py")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no/such/file.py", "no such file"),
        ("tests", "is a folder: name the file in it"),
        ("README.md", "is not a Python file"),
        ("tests/conftst.py", r"there: .*conftest\.py"),
    ],
)
def test_a_target_that_is_none_says_what_to_name(text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(CannotRun, match=words):
        Target.parse(text)


def test_an_app_under_another_name_and_a_factory_are_judged_when_named(bench: Bench) -> None:
    for name in ("app_named_api.py:api", "factory_make_app.py:make_app"):
        judged = judge_target(bench, Target.parse(str(BROKEN / name)), CHECKS)
        assert not judged.missed


def test_paths_with_spaces_and_accents_work(tmp_path: Path, bench: Bench) -> None:
    folder = tmp_path / "my caf\u00e9 app"
    folder.mkdir()
    shutil.copy(ACCEPTED / "monotonic_dependency.py", folder / "mine.py")
    assert not judge_target(bench, Target.parse(str(folder / "mine.py")), CHECKS).missed


# ---------------------------------------------------------------- the command


@pytest.mark.usefixtures("at_hand")
def test_the_first_failure_is_told_in_full_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "19.2.3", "--mine", str(REJECTED / "no_retry_after.py"), "--replay"]) == 1
    out = capsys.readouterr().out
    assert out.isascii()
    lines = out.splitlines()
    start = lines.index("FAIL  Includes a Retry-After header telling the client when to try again")
    labels = [line.split()[0] for line in lines[start + 1 : start + 7]]
    assert labels == ["when", "sent", "expected", "came", "chapter", "replay"]
    assert "when      request 11 inside one minute" in lines[start + 1]
    assert "chapter   section 19.2, exercise 3, bullet 3" in lines[start + 5]
    assert "curl -i -X POST http://127.0.0.1:8000/v1/chat -H" in lines[start + 6]
    assert "Traceback" not in out
    assert "next: make hint EX=19.2.3" in lines[-1]


@pytest.mark.usefixtures("at_hand")
def test_what_cannot_be_judged_exits_2_and_says_that_nothing_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "19.2.3", "--mine", str(BROKEN / "package_not_installed.py")]) == 2
    out = capsys.readouterr().out
    assert "cannot run  importing package_not_installed.py stopped at line 3" in out
    assert out.rstrip().endswith("Nothing was judged.")


@pytest.mark.usefixtures("at_hand")
def test_full_marks_name_the_reference_and_exit_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "3_19_2", "--mine", str(ACCEPTED / "ring_of_ten.py")]) == 0
    *_, reference, thought = capsys.readouterr().out.rstrip().splitlines()
    assert reference.endswith("exercise_3_19_2_solution.py") and thought.startswith("worth thinking about: ours")


@pytest.mark.parametrize("level", ["1", "2", "3"])
def test_hints_come_in_three_levels(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["hint", "19.2.3", "--level", level]) == 0
    out = capsys.readouterr().out
    assert all(check.hints[int(level) - 1].encode("ascii", "backslashreplace").decode() in out for check in CHECKS)
    assert ("exercise_3_19_2_solution.py" in out) == (level == "3")


def test_a_hint_for_an_unknown_check_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["hint", "19.2.3", "--check", "nonsense"]) == 2
    assert "there are: ten-allowed" in capsys.readouterr().err


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command([]) == 0
    assert "check-all" in capsys.readouterr().out


def test_an_unknown_exercise_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["check", "19.9.9"]) == 2
    assert "no exercise is called '19.9.9'" in capsys.readouterr().err


# ---------------------------------------------------------------- judging


def test_a_url_is_judged_as_far_as_it_can_be(bench: Bench) -> None:
    up = bench.open(Target.parse(str(ACCEPTED / "monotonic_dependency.py")))
    try:
        judged = judge_target(bench, Target.parse(up.base, ",".join(up.manner.keys)), CHECKS)
    finally:
        up.close()
    assert {verdict.status for verdict in judged.verdicts} == {"not checked"}
    assert "needs a clock that can be moved" in judged.verdicts[1].reason
    assert report.exit_status(judged.verdicts) == 2


def test_the_clock_is_moved_in_every_idiom(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "clocks.py").write_text(CLOCKS, encoding="utf-8")
    target = Target.parse(str(tmp_path / "clocks.py"))
    app = bench._start(target, Manner(), None, None)
    try:
        before = app.send("GET", "/clocks").json()
        app.clock.advance(3600)
        after = app.send("GET", "/clocks").json()
        slept = app.send("POST", "/sleep", body=0.05)
    finally:
        app.close()
    moved = {name: after[name] - before[name] for name in before}
    assert all(3600 <= seconds < 3610 for seconds in moved.values()), moved
    assert slept.status == 200


@pytest.mark.parametrize("how", ["thread", "event", "condition", "queue", "loop", "future"])
def test_who_waits_for_time_to_pass_notices_that_the_clock_was_moved(how: str, tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "waits.py").write_text(WAITS, encoding="utf-8")
    app = bench._start(Target.parse(str(tmp_path / "waits.py")), Manner(), None, None)
    try:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(app.send, "GET", f"/{how}")
            while app.send("GET", "/waiting").json() != [how]:
                pass
            app.clock.advance(3600)
            assert waiting.result().status == 200
    finally:
        app.close()


WAITS = """
import asyncio, concurrent.futures, queue, threading, time
from fastapi import FastAPI

app = FastAPI()
waiting = []

@app.get("/waiting")
async def who():
    return waiting

@app.get("/thread")
def thread():
    waiting.append("thread")
    time.sleep(3600)

@app.get("/event")
def event():
    waiting.append("event")
    assert not threading.Event().wait(3600)

@app.get("/condition")
def condition():
    waiting.append("condition")
    changed = threading.Condition()
    with changed:
        assert not changed.wait_for(lambda: False, timeout=3600)

@app.get("/queue")
def get():
    waiting.append("queue")
    try:
        queue.Queue().get(timeout=3600)
    except queue.Empty:
        return
    raise AssertionError

@app.get("/loop")
async def loop():
    waiting.append("loop")
    await asyncio.sleep(3600)

@app.get("/future")
def future():
    waiting.append("future")
    try:
        concurrent.futures.Future().result(timeout=3600)
    except TimeoutError:
        return
    raise AssertionError
"""

CLOCKS = """
import asyncio, datetime, logging, time
from datetime import datetime as dt
from time import monotonic, time as now
from fastapi import Body, FastAPI
from pydantic import BaseModel

class Stamp(BaseModel):
    at: dt
    day: datetime.date

app = FastAPI()

@app.get("/clocks")
async def clocks():
    assert isinstance(dt.now(), dt) and isinstance(datetime.datetime(2020, 1, 1), dt)
    assert Stamp(at="2020-01-01T00:00:00", day="2020-01-01").at.year == 2020
    return {
        "time": time.time(), "from time": now(), "monotonic": monotonic(), "perf_counter": time.perf_counter(),
        "time_ns": time.time_ns() / 1e9, "loop": asyncio.get_running_loop().time(),
        "now": dt.now().timestamp(), "aware": dt.now(datetime.timezone.utc).timestamp(),
        "utcnow": (dt.utcnow() - datetime.datetime(2020, 1, 1)).total_seconds(),
        "strftime": time.mktime(time.strptime(time.strftime("%Y-%m-%d %H:%M:%S"), "%Y-%m-%d %H:%M:%S")),
        "localtime": time.mktime(time.localtime()),
        "asctime": time.mktime(time.strptime(logging.Formatter().formatTime(record()), "%Y-%m-%d %H:%M:%S,%f")),
        "in a class": Held().now(),
    }

class Held:
    now = time.time

def record():
    return logging.makeLogRecord({"created": time.time(), "msecs": 0})

@app.post("/sleep")
def sleep(seconds: float = Body()):
    time.sleep(seconds)
    return {}
"""


def test_a_check_that_needs_what_is_missing_is_neither_met_nor_missed() -> None:
    never = Check("id", "title", "19.2.3", frozenset({"http", "clock"}), ("", "", ""), lambda app: None)
    app = App(Target(url="http://127.0.0.1:1"), "http://127.0.0.1:1", Manner())
    assert judge(never, app).status == "not checked"
    app.close()


def test_counting_and_exit_statuses() -> None:
    check = Check("id", "title", "19.2.3", frozenset({"http"}), ("", "", ""), lambda app: None)
    met, not_checked = Verdict(check, "met"), Verdict(check, "not checked", reason="because")
    missed = Verdict(check, "missed", missed=Missed(when="now", expected="this", came="that"))
    assert report.exit_status([met, not_checked]) == 0
    assert report.exit_status([met, missed]) == 1
    assert report.exit_status([not_checked]) == 2
    assert report.summary([met, met, missed, not_checked]) == "2 met, 1 missed, 1 not checked"
    assert [line.split()[0] for line in report.lines([missed, missed])].count("when") == 1


def test_what_the_chapter_does_not_ask_for_is_told_and_does_not_count() -> None:
    check = Check("id", "title", "19.2.3", frozenset({"http"}), ("", "", ""), lambda app: None, beyond=True)
    missed = Verdict(check, "missed", missed=Missed(when="now", expected="this", came="that"))
    told = for_its_author(missed)
    assert told.status == "not checked" and "now: expected this, came that" in told.reason
    assert for_its_author(met := Verdict(check, "met")) is met


@pytest.mark.parametrize(
    ("declared", "counted"), [((), {"nosniff"}), (("when-it-breaks",), {"nosniff", "when-it-breaks"})]
)
def test_what_is_beyond_the_chapter_counts_where_an_attempt_declares_it(
    declared: tuple[str], counted: set[str]
) -> None:
    attempt = Attempt("19.7.3", Path("mine.py"), frozenset(declared))
    assert attempt.counted({"nosniff", "when-it-breaks"}) == counted


def test_the_commands_of_a_learner_do_not_need_the_tests_own_packages() -> None:
    code = (
        "import sys\n"
        "for name in ('xdist', 'hypothesis', 'limits', 'slowapi', 'ruff', 'mypy'):\n"
        "    sys.modules[name] = None\n"
        "from tests.__main__ import main\n"
        "raise SystemExit(main(['check', '19.2.3']))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_a_target_leaves_no_process_and_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Bench() as bench:
        app = bench.open(Target.parse(str(ACCEPTED / "monotonic_dependency.py")))
        assert app.process
        status = app.process.status
        app.close()
        assert status.code is not None
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "news"),
    [
        ("print(open('a.txt').read())", ["x"]),
        ("print(__import__('os').getcwd(), __import__('datetime').datetime.now())", []),
        ("print(__import__('datetime').datetime.now().isoformat(), 'took', __import__('time').time(), 's')", []),
        ("open('report.md', 'w').write(open('a.txt').read())", ["x"]),
        ("open(__file__ + '.md', 'w').write(open('a.txt').read())", ["x"]),
    ],
)
def test_a_tool_tells_on_the_terminal_in_the_folder_or_beside_itself_and_the_time_is_no_news(
    code: str, news: list[str], tmp_path: Path
) -> None:
    (tmp_path / "old.md").write_text("was here before")
    (tmp_path / "tool.py").write_text(code)
    told, ran = Tool(Target(file=tmp_path / "tool.py")).news({"a.txt": "x"}, {"a.txt": "y"})
    assert told == news
    assert "before" not in ran.output


def test_mutants_change_one_thing_each() -> None:
    source = "def f(a):\n    '''doc'''\n    if a < 3:\n        return True\n    return a + 1\n"
    assert [mutant.name for mutant in mutants(source)] == [
        "if a < 3:  ->  if not a < 3:",
        "if a < 3:  ->  if a <= 3:",
        "if a < 3:  ->  if a < 4:",
        "return True  ->  (nothing)",
        "return True  ->  return False",
        "return a + 1  ->  (nothing)",
        "return a + 1  ->  return a - 1",
        "return a + 1  ->  return a + 2",
    ]
