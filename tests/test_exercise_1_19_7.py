"""19.7.1: the audit, against files whose mistakes are known, and against apps that leak on purpose."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path

import exercise_1_19_7_solution as exercise
import pytest
from exercise_1_19_7_solution import Audit, Finding, audit, audit_app, to_json, to_markdown, to_sarif
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import BadRequestError, OpenAI
from security_audit.app import Canaries, Exchange, judge, model_server
from security_audit.file_rules import check_compose, check_dockerfile, check_requirements, check_text, ignores, version
from security_audit.findings import rules
from security_audit.hidden import entropy, jumbled_key, names_secret, placeholder, secret_value, secrets_in
from security_audit.source import Source
from security_audit.static import MAX_BYTES, check_python, kind_of, read

from shared.config import environment
from tests.chapter import FOLDER
from tests.data.audit.corpora import build
from tests.data.audit.made_up import FORMATS, harmless, secret

KEY = secret("openai_project", random.Random(7))
KEPT = {name: value for name, value in environment().items() if name in exercise.KEPT}


FAILS = "@app.get('/')\ndef f():\n    try:\n        g()\n    except {} as e:\n        "


def rules_in(text: str, check=check_python) -> list[str]:  # type: ignore[no-untyped-def]
    source = Source("agent.py", text)
    check(source)
    return [finding.rule for finding in source.findings()]


# ---------------------------------------------------------------- against files whose mistakes are known


@pytest.mark.parametrize("kind", ["planted", "clean"])
def test_it_finds_exactly_what_was_planted(kind: str, tmp_path: Path) -> None:
    expected = build(kind, tmp_path)
    assert {(f.file, f.line, f.rule) for f in audit([tmp_path]).findings} == expected
    assert bool(expected) == (kind == "planted")


def test_every_rule_of_the_static_half_is_planted(tmp_path: Path) -> None:
    only_at_work = {"route-without-key", "docs-open", "input-crash", "could-not-check"}
    around = {"env-not-ignored"}  # needs a folder of its own
    assert {rule for _, _, rule in build("planted", tmp_path)} == set(rules()["rules"]) - only_at_work - around


@pytest.mark.parametrize("seed", range(5))
def test_it_recalls_85_percent_of_secrets_at_10_percent_false_alarms(seed: int) -> None:
    rng = random.Random(seed)
    made = {kind: secret(kind, rng) for kind in FORMATS}
    missed = [kind for kind, value in made.items() if "secret-in-code" not in rules_in(f"{kind} = {value!r}\n")]
    assert len(missed) <= 0.05 * len(made), missed
    alarms = [pair for pair in harmless(rng) if rules_in(f"{pair[0]} = {pair[1]!r}\n")]
    assert len(alarms) <= 0.02 * len(harmless(rng)), alarms


@pytest.mark.parametrize("kind", FORMATS)
def test_no_report_shows_a_secret(kind: str, tmp_path: Path) -> None:
    value = secret(kind, random.Random(3))
    (tmp_path / "agent.py").write_text(f"key_for_it = connect(api_key={value!r}, other={value!r})\n")
    report = audit([tmp_path])
    middle = value.replace("\n", "\\n")[12:30]
    for write in (to_markdown, to_json, to_sarif):
        assert middle not in write(report)


@pytest.mark.parametrize(
    "text",
    [f'KEY = "{KEY[:12]}" + "{KEY[12:]}"', f'KEY = ("{KEY[:30]}"\n       "{KEY[30:]}")',
     f'KEY = "".join(["{KEY[:12]}", "{KEY[12:]}"])', f'KEY = b"{KEY}"', f"# {KEY}", f'"""Use {KEY}."""'],
)  # fmt: skip
def test_a_secret_is_found_in_pieces_in_bytes_in_comments(text: str, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(text + "\n")
    report = audit([tmp_path])
    assert [f.rule for f in report.findings] == ["secret-in-code"]
    assert KEY[30:50] not in to_json(report)


def test_the_audit_does_not_flag_its_own_patterns() -> None:
    own = audit([FOLDER / "security_audit", FOLDER / "exercise_1_19_7_solution.py"])
    assert [f for f in own.findings if f.rule != "secret-in-log"] == []


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("OPENAI_API_KEY", True), ("dbPassword", True), ("x-api-key", True), ("client_secret", True), ("token", True),
     ("STRIPE_KEY", True), ("db_pass", True), ("npmtoken", True), ("github_pat", True), ("pat", False),
     ("first_pass", False), ("keyboard", False), ("api_key_header", False), ("max_tokens", False), ("", False),
     ("public_key", False), ("primary_key", False), ("has_api_key", False), ("password_hash", False)],
)  # fmt: skip
def test_a_name_says_whether_it_holds_a_secret(name: str, is_one: bool) -> None:
    assert names_secret(name) == is_one


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("print(f'{api_key[-4:]}')", []),
        ("print(f'{api_key[:8]}')", []),
        ("print(f'{api_key[:9]}')", ["secret-in-log"]),
        ("print(len(api_key), bool(api_key), mask(api_key), api_key is None)", []),
        ("print('set' if api_key else 'missing')", []),
        ("for name, value in os.environ.items():\n    print(name, value)", ["secret-in-log"]),
        ("while x:\n    print(line)\n    line = note\n    note = api_key", ["secret-in-log"]),
        ("log.info('%s', str(api_key).strip())", ["secret-in-log"]),
        ("catalog.append(api_key)", []),
        ("from logging import getLogger\nnote = getLogger('x')\nnote.info(api_key)", ["secret-in-log"]),
        ("import logging\nlogging.root.info(api_key)", ["secret-in-log"]),
        ("note = Notebook()\nnote.info(api_key)", []),
        ("from getpass import getpass\nx = getpass()\nprint(x)", ["secret-in-log"]),
        ("config = {'model': 'm', 'key': api_key}\nprint(config['model'])", []),
        ("config = {'model': 'm', 'key': api_key}\nprint(config['key'])", ["secret-in-log"]),
        ("config = {'model': 'm', 'key': api_key}\nprint(config)", ["secret-in-log"]),
        ("headers = {'Authorization': f'Bearer {x}', 'Accept': '*'}\nprint(headers)", ["secret-in-log"]),
        ("headers = {'Authorization': f'Bearer {x}', 'Accept': '*'}\nprint(headers['Accept'])", []),
        ("import os\nprint(os.environ['PORT'], os.environ.get('HOST'), os.environ.get(name, '-'))", []),
        ("import os\nprint(os.environ['API_KEY'])\nprint(os.environ.get('API_KEY'))", ["secret-in-log"] * 2),
        ("from os import environ\nprint(environ['PORT'])\nprint(dict(environ))", ["secret-in-log"]),
        ("headers = {'Authorization': mask(x)}\nprint(headers)", []),
        ("def login(user, token):\n    print(token)", ["secret-in-log"]),
        ("def on_llm_new_token(self, token):\n    print(token)", []),
        ("import jwt\ntext = jwt.encode(claims, api_key)\nprint(text)\nprint(api_key.encode())", ["secret-in-log"]),
        ("def show(text):\n    return f'<{text}>'\nprint(show(api_key))", ["secret-in-log"]),
        ("def show(text):\n    return text[:4]\nprint(show(api_key))", []),
        ("def masked(text):\n    return text.replace(text, '*')\nprint(masked(api_key))", []),
        ("import pickle as p\np.loads(x)", ["unsafe-load"]),
        ("model.eval()\nast.literal_eval(x)\nre.compile(x)", []),
        ("yaml.load(x, yaml.CSafeLoader)", []),
        ("yaml.load(x)", ["unsafe-load"]),
        ("torch.load(x, weights_only=True)\nnumpy.load(x)", []),
        ("asyncio.run(main(), debug=True)", []),
        ("try:\n    f()\nexcept ValueError:\n    pass", []),
        ("try:\n    f()\nexcept Exception:\n    log.exception('f')", []),
        ("try:\n    f()\nexcept Exception:\n    raise", []),
        ("with suppress(BaseException):\n    f()", ["swallowed-error"]),
        ("try:\n    f()\nexcept (ValueError, Exception):\n    pass", ["swallowed-error"]),
        ("sys.stderr.write(f'{api_key}')\nfile.write(api_key)", ["secret-in-log"]),
        ("log.info('%s %s', settings.__dict__, self.token)\nlog.info(event.token)", ["secret-in-log"]),
        ("log.info('%s %s', settings.port, note.__dict__)", []),
        ("log.info('%s', settings.__dict__)", ["secret-in-log"]),
        ("print(read_file(x), hide_token())", []),
        ("print(get_api_key())", ["secret-in-log"]),
        ("file.write(api_key)", []),
        ("@app.post('/')\ndef f(body: ChatRequest):\n    log.info('%s %s', body.conversation_id, body.model)", []),
        ("@app.post('/')\ndef f(body: ChatRequest):\n    log.info('%s', body.message)", ["message-in-log"]),
        ("@app.post('/')\ndef f(body: ChatRequest):\n    log.info('%s', body)", ["message-in-log"]),
        ("log.info('%s', user_message)", ["message-in-log"]),
        ("class Note(BaseModel): ...\ndef f(x: Note):\n    log.info('%s', x)", ["message-in-log"]),
        ("class Note(Base): ...\ndef f(x: Note):\n    log.info('%s', x)", []),
        ("def f(body: ChatRequest): ...\nbody = load()\nlog.info('%s', body)", []),
        ("def show(message):\n    log.info('%s', message)", []),
        ("import openai\ndef ask(message):\n    log.info('%s', message)", ["message-in-log"]),
        ("import openai\ndef log_it(message):\n    log.info('%s', message)", []),
        ("import openai\ndef ask(message):\n    log.info(message)", []),
        ("import openai\ndef ask(message):\n    log.info(message, message)", ["message-in-log"]),
        ("@app.get('/{message}')\ndef f(message: str):\n    log.info('%s', message)", ["message-in-log"]),
        ("os.environ['FLASK_DEBUG'] = '1'\napp.config.update(DEBUG=True)\nc = {'debug': True}", ["debug-on"] * 3),
        ("class S:\n    debug: bool = Field(default=True)\n    other: bool = Field(default=True)", ["debug-on"]),
        ("d = os.getenv('DEBUG', 'false') == 'true'\nif debug == True:\n    f()", []),
        (
            "def h(request, exc):\n    return JSONResponse({'e': str(exc)})\napp.add_exception_handler(Exception, h)",
            ["error-leak"],
        ),
        ("def h(request, exc):\n    return JSONResponse({'e': str(exc)})\napp.add_exception_handler(Mine, h)", []),
        (
            "API_KEY = load()\ndef verify():\n    raise HTTPException(401, f'expected {API_KEY}')",
            ["secret-in-response"],
        ),
        ("class Config:\n    api_key: SecretStr\nlogger.info(asdict(config))", []),
        ("class Config:\n    api_key: SecretStr\n    db_password: str\nlogger.info(asdict(config))", ["secret-in-log"]),
        ("class Config:\n    port: int\nlogger.info(asdict(config))", ["secret-in-log"]),
        ("PASSWORD = 'hunter2'\nPASSWORD_KIND = 'hunter2'\nPASSWORD = 'password'", ["secret-in-code"]),
    ],
)
def test_a_value_is_followed_until_it_is_masked_or_shown(code: str, found: list[str]) -> None:
    assert rules_in(code + "\n") == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("FROM python", ["container-root", "image-latest"]),
        ("from python:3.12\nuser app", []),
        ("FROM python:3.12\nUSER 0:0", ["container-root"]),
        ('FROM python:3.12\nUSER "root"', ["container-root"]),
        ("FROM python:3.12\nUSER 1000", []),
        ("FROM python:3.12\nUSER app\nUSER root\nUSER app", []),
        ("FROM scratch\nUSER 1", []),
        (f"FROM python:3.12\nUSER app\nENV NOTE={KEY}", ["secret-in-image"]),
        ("FROM ${BASE}\nUSER app", []),
        ("FROM python:3.12 as\nUSER app", []),
        ("FROM python:latest-slim\nUSER app", ["image-latest"]),
        ("FROM python:3.12\nUSER app\nRUN <<EOF\nls\nEOF\nUSER root", ["container-root"]),
        ("FROM python:3.12\nUSER app\nENV A=1 \\\n# note\n\n    API_KEY=k", ["secret-in-image"]),
        ('FROM python:3.12\nENTRYPOINT ["gosu", "app", "tini"]', []),
        ("FROM python:3.12\nENTRYPOINT su-exec root run", ["container-root"]),
        ("FROM python:3.12\nUSER app\nENV A=1 \\\n    B_KEY=x \\\n    API_KEY=k C_PASSWORD=k", ["secret-in-image"]),
        ("FROM python:3.12 AS a\nUSER app\nFROM a", []),
        ("FROM python:3.12 AS a\nUSER app\nFROM python:3.12", ["container-root"]),
        ("FROM gcr.io/distroless/python3:nonroot", []),
        ("FROM nginxinc/nginx-unprivileged:1.27", []),
        ("ARG TAG=latest\nFROM python:${TAG}\nUSER app", ["image-latest"]),
        ("FROM host:5000/python\nUSER app", ["image-latest"]),
        ("FROM --platform=linux/amd64 python:3.12\nUSER app", []),
        ("FROM python:3.12\nUSER app\nRUN <<EOF\nUSER root\nEOF", []),
        ("FROM python:3.12\nUSER app\n# ENV API_KEY=1\nENV API_KEY=", []),
        ("FROM python:3.12\nUSER app\nENV A=1 \\\n    API_KEY=k", ["secret-in-image"]),
        ("FROM python:3.12\nUSER app\nENV OPENAI_API_KEY=$OPENAI_API_KEY", ["secret-in-image"]),
        ("# escape=`\nFROM python:3.12\nUSER app\nENV A=1 `\n  DB_PASSWORD=k", ["secret-in-image"]),
        ("FROM python:3.12\nUSER app\nCOPY --from=ghcr.io/astral-sh/uv:latest /uv /bin/", ["image-latest"]),
        ("FROM python:3.12\nUSER app\nCOPY --from=ghcr.io/astral-sh/uv:0.9 /uv /bin/", []),
        ("FROM python:3.12\nUSER app\nENV AWS_ACCESS_KEY_ID=grey_heron_4711", ["secret-in-image"]),
        ("FROM python:3.12\nUSER app\nENV API_KEY={{ api_key }}\nENV API_KEY={KEY}", ["secret-in-image"]),
        ('FROM python:3.12\nUSER app\nCOPY [".env", "/app/"]', ["env-in-image"]),
        ("FROM python:3.12\nUSER app\nCOPY .env.example .", []),
        ("", []),
    ],
)
def test_a_dockerfile_is_read_as_docker_reads_it(text: str, found: list[str]) -> None:
    assert sorted(rules_in(text, check_dockerfile)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [("a==1.0", []), ("a", ["unpinned"]), ("a~=1.0", ["unpinned"]), ("a==1.*", ["unpinned"]), ("-e .", []), ("# a", []),
     ("a==1.0 \\", []), ("h11==0.15.9", ["vulnerable-pin"]), ("h11==0.16.0", []), ("H11 == 0.9", ["vulnerable-pin"]),
     ("aiohttp==3.12.13", ["vulnerable-pin"]), ("flask==2.3.1", ["vulnerable-pin"]), ("flask==2.2.5", [])],
)  # fmt: skip
def test_requirements_are_pinned_and_patched(line: str, found: list[str]) -> None:
    assert rules_in(line, check_requirements) == found


def test_edge_a_known_hole_is_open_from_the_version_that_brought_it_to_the_one_before_its_fix() -> None:
    for package, since, *_ in rules()["pins"]["vulnerable"]:
        assert rules_in(f"{package}=={since}", check_requirements) == ["vulnerable-pin"], package


def test_versions_are_compared_as_numbers() -> None:
    assert version("2.10") > version("2.9") > version("2.9rc1.dev3"[:1])
    assert version("1.0") == version("1") == version("1.0.0+local")


@pytest.mark.parametrize(
    ("lines", "ignored"),
    [(".env", True), ("*.env", True), (".env*", True), ("**/.env", True), ("/.env", True), (".env\n!.env", False),
     ("# .env", False), (".environment", False), ("", False), ("*", True)],
)  # fmt: skip
def test_an_ignore_file_is_read_to_its_end(lines: str, ignored: bool, tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text(lines + "\n")
    (tmp_path / "app").mkdir()
    assert ignores(tmp_path / "app", ".gitignore") is ignored
    (tmp_path / "app" / ".env").write_text("A=1\n")
    assert [f.rule for f in audit([tmp_path]).findings] == ([] if ignored else ["env-not-ignored"])


def test_edge_the_nearest_ignore_file_counts_and_none_outside_of_the_repository(tmp_path: Path) -> None:
    repository, app = tmp_path / "repository", tmp_path / "repository" / "app"
    app.mkdir(parents=True)
    (tmp_path / ".gitignore").write_text(".env\n")
    assert ignores(app, ".gitignore")
    assert not ignores(app, ".dockerignore")
    (repository / ".git").mkdir()
    assert not ignores(app, ".gitignore")
    (repository / ".gitignore").write_text(".env\n")
    assert ignores(app, ".gitignore")
    (app / ".gitignore").write_text("!.env\n")
    assert not ignores(app, ".gitignore")


@pytest.mark.parametrize("kind", ["private_key", "stripe_live", "jwt", "database_password"])
@pytest.mark.parametrize("form", ["{name} = {value}\n", '"{name}": "{value}",\n', "{name}: {value}\n"])
def test_a_secret_is_found_in_any_settings_file(kind: str, form: str, tmp_path: Path) -> None:
    value = secret(kind, random.Random(5))
    (tmp_path / "settings.json").write_text("a = 1\n" + form.replace("{name}", kind).replace("{value}", value))
    found = audit([tmp_path]).findings
    assert [(f.rule, f.line) for f in found] == [("secret-in-code", 2)]
    assert value[-6:] not in found[0].evidence


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("engine = create_engine(f'mysql://root:{0}@{{host}}/shop')", "a.py"),
        ("if request.headers['x-api-key'] != '{0}': raise E", "a.py"),
        ("requests.get(url, auth=('admin', '{0}'))", "a.py"),
        ("requests.get(url, auth=HTTPBasicAuth('admin', '{0}'))", "a.py"),
        ("API_KEYS = {{'{0}': 'alice'}}", "a.py"),
        ("VALID_API_KEYS = ['{0}']", "a.py"),
        ("api_key = Field(default='{0}')", "a.py"),
        ("parser.add_argument('--api-key', default='{0}')", "a.py"),
        ("SECRET = config('SECRET_KEY', '{0}')", "a.py"),
        ("setattr(settings, 'api_key', '{0}')", "a.py"),
        ("if hmac.compare_digest(api_key, '{0}'): ...", "a.py"),
        ("if hmac.compare_digest('{0}'.encode(), api_key): ...", "a.py"),
        ("API_KEY, URL = '{0}', 'https://shop.test'", "a.py"),
        ("import jwt\njwt.encode(payload, '{0}', algorithm='HS256')", "a.py"),
        ("Fernet(b'{0}')", "a.py"),
        ("connect('host=db user=app password={0} dbname=shop')", "a.py"),
        ("PGPASSWORD={0} psql", "run.sh"),
        ('apiKey := "{0}"', "main.go"),
        ("conn = 'Server=db;UID=sa;PWD={0};'", "a.py"),
        ("command: redis-server --requirepass {0}", "config.yml"),
        ("curl -u admin:{0} https://shop.test", "run.sh"),
        ('variable "db_password" {{\n  default = "{0}"', "main.tf"),
        ("- name: API_KEY\n  value: {0}", "pod.yml"),
        ("| OPENAI_API_KEY | sk-proj-{0} |", "notes.md"),
        ("URL = 'postgres://app:P@{0}@db/shop'", "a.py"),
        ("URL = 'postgres://app:P%40{0}@db/shop'", "a.py"),
        ("export API_TOKEN=${{API_TOKEN:-{0}}}", "run.sh"),
        ("wget --http-password={0} https://shop.test", "run.sh"),
        ("  --proxy-user admin:{0} \\", "run.sh"),
        ("AZURE_DEVOPS_PAT={0}", "run.sh"),
        ("url = 'https://a.test/?key={0}'", "a.py"),
        ("//registry.shop.test/:_authToken={0}", ".npmrc"),
        ("https://alice:{0}@git.shop.test", ".git-credentials"),
        ("IBM_CLOUD_IAM_KEY={0}", "run.sh"),
    ],
)
def test_a_secret_is_found_wherever_it_is_written(line: str, file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(line.format("Zq7rT2mKx9wLp4Vc8bNd3Hs6") + "\n")
    assert {f.rule for f in audit([tmp_path]).findings} == {"secret-in-code"}
    (tmp_path / file).write_text(line.format("your-key-here") + "\n")
    assert not audit([tmp_path]).findings


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("DB = 'postgres://postgres:postgres@localhost:5432/postgres'", []),
        ("is_valid_api_key = 'Zq7rT2mKx9wLp4Vc8bNd3Hs6'", []),
        ("o = {'allow_origins': ['*'], 'allow_credentials': True}\nadd(CORSMiddleware, **o)", ["open-cors"]),
        ("def f():\n    o = ['*']\n    add(CORSMiddleware, allow_origins=o, allow_credentials=True)", ["open-cors"]),
        (
            "def f():\n    o = ['*']\n    o = ['https://a.test']\n"
            "    add(CORSMiddleware, allow_origins=o, allow_credentials=True)",
            [],
        ),
        ("import asyncio\nasyncio.create_subprocess_shell(given)", ["code-execution"]),
        ("import asyncio\nasyncio.create_subprocess_shell('ls')", []),
        ("@app.post('/')\nasync def f(request):\n    json.loads(await request.body())", ["unvalidated-body"]),
        ("@app.post('/')\nasync def f(request):\n    json.loads(await cache.body())", []),
        ("@app.post('/')\nasync def f(request):\n    Chat(**json.loads(await request.body()))", []),
        ("@app.post('/')\ndef f():\n    use(request.json['message'])", ["unvalidated-body"]),
        ("@app.post('/')\ndef f(body: Annotated[dict, Body()]): ...", ["unvalidated-body"]),
        ("@app.post('/')\ndef f(body: dict[str, Any]): ...", ["unvalidated-body"]),
        ("@app.post('/')\ndef f(body: dict[str, int]): ...", []),
        ("class User(BaseModel):\n    name: str\n@app.post('/')\ndef f(u: User): ...", []),
        (
            "class NameRequest(BaseModel):\n    name: str\n@app.post('/')\ndef f(u: NameRequest): ...",
            ["no-length-limit"],
        ),
        ("SECRET_KEY = 'the-super-secret-word-key'\nSECRET_KEY = 'the super secret word'", ["secret-in-code"] * 2),
        ("API_KEY = 'sk_test_qx71zb'", ["secret-in-code"]),
        ("SMTP_PASSWORD = 'qmuo axta wjra aubn'\nSMTP_NOTE = 'qmuo axta wjra aubn'", ["secret-in-code"]),
        (
            "@app.get('/')\ndef f():\n    try:\n        g()\n    except json.JSONDecodeError as e:\n"
            "        raise HTTPException(500, f'bad file: {e}')",
            ["error-leak"],
        ),
        (
            "import flask\napp.secret_key = 'breadandtea'\nc['SECRET_KEY'] = 'a key of words'",
            ["secret-in-code"] * 2,
        ),
        (
            "import flask\napp.secret_key = 'your_secret_key'\nf(SECRET_KEY='dev', secret_key='test key')",
            [],
        ),
        ("other.secret_key = 'breadandtea'\nsecret_keys = 'hunter22'", []),
        ("JWT_SECRET_KEY = 'hunter22'\nSECRET_KEY = '!ruuneLL.qwem('", ["secret-in-code"] * 2),
        ("f()  # api.key = 1\n# openai.api_key = 'KLmnoKLm7pQr4Stu91vWxyzKLpq2rstUVw8xyZab'", ["secret-in-code"]),
        ("# openai.api_key = 'your-key'\n# see api_key = os.environ['X']", []),
        ("weather_key = 'Zq7rT2mKx9wLp4Vc8bNd3Hs6'", ["secret-in-code"]),
        ("cache_key = 'users-by-name-and-country-2'\ndigest_key = '" + "0123456789abcdef" * 2 + "'", []),
        ("long_key = '" + "aB3" * 1000 + "!'", []),
        ("errors = {'password': 'a super long sentence says what a password must be like'}", []),
        ("import jwt\nkey = 'secret'\njwt.encode(payload, key, algorithm='HS256')", ["secret-in-code"]),
        ("import jwt\njwt.decode(text, settings.key, ['HS256'])\njwt.decode(text, '-----BEGIN PUBLIC KEY-----')", []),
        ("URL = 'postgres://app:%s@db/shop'", []),
        ("SECRET_KEY = 'my-secret-key'\nCODE_ERROR = 'very-odd'\nNOTE = 'super-secret-key'", []),
        ("schemes = {'password': {'type': 'oauth2x1', 'ref': '#/defs/a1'}}", []),
        ("api_key = 'ORnXsqfNWSttdl'", ["secret-in-code"]),
        ("api_key = 'getElementByIdOrName'", []),
        ("passwords = {'alice': 'hunter22'}", ["secret-in-code"]),
        ("api_key = 't1.9euelZqWm4.Zq7rT2mKx9wLp4Vc8bNd3Hs6Zq7rT2mKx9wLp4Vc8b'", ["secret-in-code"]),
        ("api_key = 'settings.providers.openai'", []),
        ("api_key = 'sk-test-key-for-unit-tests'", []),
        ("app.run('0.0.0.0', 8080, True)", ["debug-on"]),
        ("app.run('0.0.0.0', 8080, False)\nrun('a', 1, True)", []),
        ("async def h(request, e: Exception):\n    return JSONResponse({'e': str(e)})", ["error-leak"]),
        ("async def h(request, e: Mine):\n    return JSONResponse({'e': str(e)})", []),
        ("@app.exception_handler(Exception)\ndef h(request, e):\n    return str(e)", ["error-leak"]),
        ("first, *rest = 'a', 'b', 'c'", []),
        (
            "def h(request, e): ...\ndef other(request, x):\n    return JSONResponse({'x': str(x)})\n"
            "app.add_exception_handler(Exception, h)",
            [],
        ),
        (f"{FAILS.format('ValueError')}raise HTTPException(499, str(e))", []),
        ("class Reply(BaseModel):\n    message: str\n@app.get('/')\ndef f() -> Reply: ...", []),
        ("class Reply(BaseModel):\n    message: str", []),
        ("@app.get('/')\n@cached\ndef f(): ...", []),
        ("@app.post('/')\ndef f(message: str = Depends(get), body: Annotated[dict, Depends(get)] = None): ...", []),
        ("@app.post('/')\ndef f(body: M):\n    return httpx.get(request.url_for('x')).json()", []),
        ("@app.exception_handler(500)\ndef h(request, e):\n    return JSONResponse({'e': str(e)})", ["error-leak"]),
        ("@app.exception_handler(Exception)\ndef h(request, e):\n    return Answer(why=str(e))", ["error-leak"]),
        ("@app.exception_handler(404)\ndef h(request, e):\n    return JSONResponse({'e': str(e)})", []),
        (f"{FAILS.format('ValueError')}raise HTTPException(status.HTTP_400_BAD_REQUEST, str(e))", []),
        (f"{FAILS.format('ValueError')}raise HTTPException(status.HTTP_502_BAD_GATEWAY, str(e))", ["error-leak"]),
        (f"{FAILS.format('ValueError')}raise HTTPException(500, str(e))", ["error-leak"]),
        (f"{FAILS.format('Exception')}return Answer(why=str(e))", ["error-leak"]),
        (f"{FAILS.format('Exception')}why = str(e)\n    return {{'why': why}}", ["error-leak"]),
        (f"{FAILS.format('ValueError')}why = str(e)\n    return {{'why': why}}", []),
        (f"{FAILS.format('OurError')}raise HTTPException(502, str(e), headers={{'Retry-After': 600}})", []),
        ("debug = wrapped(True)", []),
        ("add(CORSMiddleware, allow_origin_regex='.*', allow_credentials=True)", ["open-cors"]),
        ("add(CORSMiddleware, allow_origin_regex=r'https://.*\\.shop\\.test', allow_credentials=True)", []),
        ("class S:\n    debug: bool = Field(True)", ["debug-on"]),
        ("configure(allow_origins=['*'], allow_credentials=True)", []),
        ("import jwt\njwt.encode(payload, key='breadandtea')", ["secret-in-code"]),
        ("import jwt\njwt.encode(payload)", []),
        ("FAISS.load_local(p, e, allow_dangerous_deserialization=True)", ["unsafe-load"]),
        ("if (api_key := 'Zq7rT2mKx9wLp4Vc8bNd3Hs6'): f()", ["secret-in-code"]),
        ("class ChatRequest(BaseModel):\n    model_config = ConfigDict(str_max_length=99)\n    message: str", []),
        (
            "class ChatRequest(BaseModel):\n    message: str\n    @model_validator(mode='after')\n    def f(self): ...",
            [],
        ),
        ("def told(e: Exception):\n    return str(e)\nmake_response('x')", []),
        (
            "def told(text):\n    return f'failed: {text}'\n@app.get('/')\ndef f():\n    try:\n        g()\n"
            "    except Exception as e:\n        return told(str(e))",
            ["error-leak"],
        ),
        (
            "def noted(text):\n    log.error(text)\n    return 'failed'\n@app.get('/')\ndef f():\n    try:\n"
            "        g()\n    except Exception as e:\n        return noted(str(e))",
            [],
        ),
        (
            "@app.get('/')\ndef f():\n    try:\n        g()\n    except Exception as e:\n"
            "        return render_template('error.html', why=str(e))",
            ["error-leak"],
        ),
        ("client = OpenAI()\n@app.get('/')\ndef f():\n    return {'k': client.api_key}", ["secret-in-response"]),
        ("@app.get('/')\ndef f(client):\n    return {'k': client.api_key}", []),
        ("@app.get('/')\ndef f():\n    client = find()\n    return {'k': client.api_key}", []),
        ("@app.get('/')\ndef f(row):\n    return row['api_key']", []),
        ("import os\n@app.get('/')\ndef f():\n    return os.environ['API_KEY']", ["secret-in-response"]),
        ("import os\n@app.get('/')\ndef f():\n    return os.getenv('API_KEY')", ["secret-in-response"]),
        ("API_KEY = load()\n@app.get('/')\ndef f():\n    return Answer(key=API_KEY)", ["secret-in-response"]),
    ],
)
def test_one_mistake_has_many_spellings(code: str, found: list[str]) -> None:
    assert rules_in(code + "\n") == found


@pytest.mark.parametrize(("value", "shown"), [("abcd", "****"), ("abc", "abc"), ("$OPENAI_KEY", "$OPENAI_KEY")])
def test_edge_a_secret_of_an_image_is_masked_and_a_reference_is_not(value: str, shown: str) -> None:
    source = Source("Dockerfile", f"FROM python:3.12\nUSER app\nENV API_KEY={value}\n")
    check_dockerfile(source)
    assert [finding.evidence for finding in source.findings()] == [f"ENV API_KEY={shown}"]


@pytest.mark.parametrize(
    ("copied", "ignored", "found"),
    [
        ("COPY . .", "", True),
        ("COPY . .", ".env\n", False),
        ("COPY --from=build . .", "", False),
        ("ADD ./ /app", "", True),
        ("COPY app app", "", False),
    ],
)
def test_a_whole_folder_in_an_image_needs_a_dockerignore(
    copied: str, ignored: str, found: bool, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM python:3.12 AS build\nFROM python:3.12\nUSER app\n{copied}\n")
    (tmp_path / ".dockerignore").write_text(ignored)
    assert [f.rule for f in audit([tmp_path]).findings] == ["env-in-image"] * found


@pytest.mark.parametrize(("value", "shown"), [("abcd", "****"), ("abc", "abc")])
def test_edge_a_secret_of_a_service_is_masked(value: str, shown: str) -> None:
    source = Source("compose.yml", f"services:\n  a:\n    environment:\n      API_KEY: {value}\n")
    check_compose(source)
    assert [(f.rule, f.evidence) for f in source.findings()] == [("compose-secret", f"API_KEY: {shown}")]


def test_a_secret_is_found_anywhere_in_a_compose_file_and_in_one_that_is_none() -> None:
    build = "services:\n  a:\n    build:\n      args:\n        API_KEY: abcd\n"
    assert rules_in(build, check_compose) == ["compose-secret"]
    assert rules_in(f"services:\n  a:\n    labels:\n      note: {KEY}\n", check_compose) == ["compose-secret"]
    broken = Source("compose.yml", f"services: [\nAPI_KEY={KEY}\n")
    check_compose(broken)
    assert [(f.rule, f.line) for f in broken.findings()] == [("could-not-check", 1), ("secret-in-code", 2)]


def test_a_finding_stands_where_the_mistake_is() -> None:
    cors = "add(\n    CORSMiddleware,\n    allow_credentials=True,\n    allow_origins=['*'],\n)\n"
    for text, check, line in ((cors, check_python, 4), ("# first\nFROM python\nUSER app\n", check_dockerfile, 2)):
        source = Source("f", text)
        check(source)
        assert [finding.line for finding in source.findings()] == [line]


def test_debugging_is_found_in_settings() -> None:
    text = "DEBUG=true\nexport APP_DEBUG=1\nDEBUG_LEVEL=1\nDEBUG=false\n"
    assert rules_in(text, check_text) == ["debug-on"] * 2


def test_edge_a_value_without_a_name_above_it_is_no_secret() -> None:
    assert rules_in("value: Zq7rT2mKx9wLp4Vc8bNd3Hs6\n", check_text) == []


def test_the_lines_that_read_a_key_are_listed() -> None:
    source = Source("agent.py", "import os\nkey = os.environ['API_KEY']\nprint(1)\napi_key = key\nuse(api_key)\n")
    check_python(source)
    assert sorted(source.key_uses) == [2, 5]


# ---------------------------------------------------------------- what a secret looks like, to the character


@pytest.mark.parametrize(
    ("value", "stands_in"),
    [
        ("abcdeabcde", False),  # five letters vary enough
        ("abcdabcdabcd", True),
        ("a" * 30 + "bcdefgh", True),  # eight, and nearly always the same one
        ("sk-" + "a" * 30 + "bcdefgh", True),
    ],
)
def test_edge_what_hardly_varies_stands_in_for_a_secret(value: str, stands_in: bool) -> None:
    assert placeholder(value) is stands_in


def test_entropy_is_shannons() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abab") == 1
    assert entropy("abcdefgh") == 3


def test_a_secret_within_its_format_is_found_where_it_stands() -> None:
    text = "one\npostgres://app:Zq7rT2mKx9wLp4Vc@db/shop\n"
    ((start, value),) = secrets_in(text)
    assert value == "Zq7rT2mKx9wLp4Vc"
    assert text[start:].startswith(value)


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("api_key", "a1b2c3d4e5f6", True),
        ("api_key", "a1b2c3d4e5f", False),  # eleven characters
        ("api_key", "ORnXsqfNWStt", True),
        ("api_key", "ORnXsqfNWSt", False),
        ("api_key", "getUserByKey", False),  # four words in twelve letters
        ("api_key", "getElementByIdOrNameOrClass", False),  # long, and still words
        ("password", "horsebattery", False),
        ("password", "horsebattery1", True),
        ("password", "horse battery", False),
        ("password", "horse*battery", True),
        ("password", "horse/battery", False),
    ],
)
def test_edge_a_value_under_a_secrets_name_is_a_secret_or_words(name: str, value: str, is_one: bool) -> None:
    assert secret_value(name, value) is is_one


@pytest.mark.parametrize(("length", "is_one"), [(200, True), (201, False), (24, True), (23, False)])
def test_edge_a_key_of_whatever_service_has_24_to_200_characters(length: int, is_one: bool) -> None:
    value = ("Zq7rT2mKx9wLp4Vc8bNd3Hs6" * 9)[:length]
    assert jumbled_key("weather_key", value) is is_one


# ---------------------------------------------------------------- findings, reports, baseline


def test_an_id_survives_moving_lines_and_tells_equal_lines_apart(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_text("eval(x)\neval(x)\n")
    before = [f.id for f in audit([tmp_path]).findings]
    file.write_text("import os\n\n\neval(x)\n\neval(x)\n")
    assert [f.id for f in audit([tmp_path]).findings] == before
    assert len(set(before)) == 2


def test_the_worst_comes_first_and_what_is_accepted_is_not_open() -> None:
    low, high, worst = (Finding(rule, "a.py", 9, "x") for rule in ("unpinned", "debug-on", "secret-in-code"))
    report = Audit((low, high, worst), 1, (), {high.id: "on purpose"})
    assert report.open == [worst, low]
    text = to_markdown(report)
    assert text.index(worst.id) < text.index(low.id) < text.index("on purpose")
    suppressed = [r for r in json.loads(to_sarif(report))["runs"][0]["results"] if "suppressions" in r]
    assert [r["partialFingerprints"]["auditId/v1"] for r in suppressed] == [high.id]


def test_sarif_has_what_its_readers_need(tmp_path: Path) -> None:
    build("planted", tmp_path)
    sarif = json.loads(to_sarif(audit([tmp_path])))
    run = sarif["runs"][0]
    declared = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert sarif["version"] == "2.1.0"
    for result in run["results"]:
        assert result["ruleId"] in declared
        assert result["level"] in ("error", "warning", "note")
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1


def test_every_finding_has_what_the_chapter_asks_for(tmp_path: Path) -> None:
    build("planted", tmp_path)
    for entry in json.loads(to_json(audit([tmp_path])))["findings"]:
        assert all(entry[name] for name in ("id", "severity", "owasp", "file", "line", "evidence", "fix", "verify"))


def test_exit_status_is_0_clean_1_findings_2_could_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, baseline = tmp_path / "agent.py", tmp_path / "accepted.json"
    file.write_text("x = 1\n")
    assert exercise.main([str(file)]) == 0
    file.write_text("eval(x)\n")
    capsys.readouterr()
    assert exercise.main([str(file), "--format", "json"]) == 1
    baseline.write_text(capsys.readouterr().out)
    assert exercise.main([str(file), "--baseline", str(baseline)]) == 0
    for wrong in ("[]", "{}", "no json", '{"findings": [{}]}'):
        baseline.write_text(wrong)
        assert exercise.main([str(file), "--baseline", str(baseline)]) == 2
    (tmp_path / "empty").mkdir()
    assert exercise.main([str(tmp_path / "empty")]) == 2
    assert exercise.main([str(tmp_path / "missing")]) == 2
    assert "cannot run" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        exercise.main(["--format", "pdf"])
    assert stopped.value.code == 2


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize("text", ["def f(:\n", "x = " + "(" * 5000, "\ud800".encode("utf-8", "surrogatepass")])
def test_failure_a_file_that_does_not_parse_is_a_finding(text: str | bytes, tmp_path: Path) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "agent.py").write_bytes(data + b"\n# " + KEY.encode() + b"\n")
    found = {f.rule for f in audit([tmp_path]).findings}
    assert {"could-not-check", "secret-in-code"} <= found


def test_edge_a_huge_file_says_so_and_a_binary_one_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "big.py").write_text("x = 1\n" * 200_000)
    (tmp_path / "binary.json").write_bytes(b"\0" * 100)
    (tmp_path / "loop.py").symlink_to(tmp_path)
    report = audit([tmp_path])
    assert [(f.file, f.rule) for f in report.findings] == [("big.py", "could-not-check")]
    assert report.files == 1


@pytest.mark.parametrize(
    "text",
    [
        "services: &s\n  a: *s\n",
        "services:\n  a: &a\n    environment: *a\n",
        "services:\n  a:\n    x:\n      y: &y\n        z: *y\n",
        "? [a]\n: b\n",
        "services:\n  a:\n    ? [image]\n    : x\n",
        "services: " + "[" * 3_000,
        '{"a":' * 3_000,
    ],
)
def test_abuse_a_compose_file_may_contain_itself(text: str) -> None:
    assert set(rules_in(text, check_compose)) <= {"could-not-check"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_edge_a_pipe_in_the_folder_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "agent.py").write_text("x = 1\n")
    assert audit([tmp_path]).files == 1


def test_failure_a_file_that_may_not_be_read_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "agent.py").write_text("x = 1\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    (finding,) = audit([tmp_path]).findings
    assert (finding.rule, finding.line) == ("could-not-check", 1)
    assert finding.detail == "cannot be read: Permission denied"


CHECKS = (check_python, check_text, check_dockerfile, check_compose, check_requirements)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text() | st.text("FROMENVARGUSER=:${}\"' \n\\<>#abk_-.0", max_size=80), st.sampled_from(CHECKS))
def test_abuse_no_text_stops_a_check(text: str, check) -> None:  # type: ignore[no-untyped-def]
    rules_in(text, check)


@pytest.mark.parametrize(
    "piece",
    ["a", "a.", "a_", "sk-", "eyJaaaaaaaa.", "a://a:", "Bearer ", "0a", "ENV A=", "curl -u a:", "--token ", ";pwd="],
)
@pytest.mark.parametrize("check", [check_text, check_dockerfile], ids=lambda c: c.__name__)
def test_abuse_time_grows_with_length_and_no_faster(piece: str, check) -> None:  # type: ignore[no-untyped-def]
    def once(length: int) -> float:
        source = Source("f", "ENV A " + piece * (length // len(piece)))
        begun = time.process_time()
        check(source)
        source.findings()
        return time.process_time() - begun

    def took(length: int) -> float:
        return min(once(length) for _ in range(3))  # the one that was disturbed least

    assert took(32_000) < 24 * took(4_000) + 0.02  # linear is 8 times, quadratic 64


# ---------------------------------------------------------------- which files are read, and what of a line is shown


def test_edge_a_file_of_the_greatest_size_is_read_and_a_longer_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "agent.py"
    file.write_bytes(b"#" * 1_000_000)
    source = read(file, "agent.py")
    assert source is not None
    assert (MAX_BYTES, len(source.text), source.findings()) == (1_000_000, 1_000_000, [])
    file.write_bytes(b"#" * 1_000_001)
    source = read(file, "agent.py")
    assert source is not None
    assert [(f.rule, f.line) for f in source.findings()] == [("could-not-check", 1)]


def test_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent.py").write_text("eval(x)\n")
    monkeypatch.chdir(tmp_path)
    report = audit([Path("agent.py"), tmp_path])
    assert (report.files, [f.file for f in report.findings]) == (1, ["agent.py"])


@pytest.mark.parametrize(("length", "start"), [(12, 4), (24, 4), (24, 8), (24, 16)])
def test_eight_characters_of_a_secret_are_not_shown_either(length: int, start: int) -> None:
    value = "abcdefghijklmnopqrstuvwx"[:length]
    source = Source("f", f"the rest: {value[start : start + 8]}")
    source.find("secret-in-code", 1, secret=value)
    assert source.masked(1) == "the rest: ****"


def test_the_report_lists_every_use_of_a_key_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os\n\nb = os.environ['OPENAI_API_KEY']\nc = os.environ['API_KEY']\n")
    assert [(file, line) for file, line, _ in audit([tmp_path]).key_uses] == [("a.py", 3), ("a.py", 4)]


def test_failure_a_path_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        audit([tmp_path / "missing"])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("requirements.txt", "requirements"), ("requirements/dev.txt", "requirements"), ("notes.txt", ""),
     ("dev-requirements.txt", "requirements"), ("constraints.txt", "requirements"), ("requirements/README", ""),
     ("agent.pyw", "python"), ("Dockerfile.dev", "docker"), ("exercise_2_Dockerfile", "docker"),
     ("compose.yaml", "compose")],
)  # fmt: skip
def test_a_file_is_read_by_its_name(name: str, kind: str) -> None:
    assert kind_of(Path("project") / name) == kind


def test_what_surrounds_a_file_counts_when_its_folder_is_audited(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.12-slim\nCOPY . .\nUSER app\n")
    (tmp_path / ".env.example").write_text("API_KEY=\n")

    def found(path: Path) -> set[tuple[str, str, int]]:
        about_env = ("env-in-image", "env-not-ignored")
        return {(f.rule, f.file, f.line) for f in audit([path]).findings if f.rule in about_env}

    assert found(tmp_path) == {("env-in-image", "Dockerfile", 2), ("env-not-ignored", ".env.example", 1)}
    assert found(tmp_path / "Dockerfile") == found(tmp_path / ".env.example") == set()


def test_an_env_file_that_git_would_take_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"# ours\nOPENAI_API_KEY={KEY}\n")
    rules_and_lines = [(f.rule, f.line) for f in audit([tmp_path]).findings]
    assert rules_and_lines[0] == ("env-not-ignored", 1)
    assert 2 in [line for _, line in rules_and_lines]
    (tmp_path / ".gitignore").write_text(".env\n")
    assert audit([tmp_path]).findings == ()


def test_edge_escapes_that_python_warns_of_are_no_finding() -> None:
    assert rules_in("x = '\\d'\n") == []


@pytest.mark.parametrize(("text", "line"), [("x = 1\ny = 2\ndef f(:\n", 3), ("x = '\0'\n", 1)])
def test_failure_what_does_not_parse_is_told_with_its_line(text: str, line: int) -> None:
    source = Source("agent.py", text)
    check_python(source)
    assert [(f.rule, f.line) for f in source.findings()] == [("could-not-check", line)]


def test_a_source_knows_where_its_secrets_are() -> None:
    source = Source("f", f"a\n\n{KEY}")
    assert source.find_secrets(f"\n{KEY}", 2)
    assert source.has("secret-in-code", 3)
    assert not source.has("secret-in-code", 2)
    assert not source.find_secrets("no more than words", 1)


@pytest.mark.parametrize(
    ("line", "secrets", "shown"),
    [
        ("p = wolf-owl", ["wolf-owl"], "p = ****"),
        ("p = wolf-owl-hare-and-", ["wolf-owl-hare-and-"], "p = ****"),
        ("p = wolf-owl-hare-and-e", ["wolf-owl-hare-and-e"], "p = ****"),
        ("p = wolf-owl-hare-and-el", ["wolf-owl-hare-and-el"], "p = wolf****"),
        ("p = wolf-owl-hare", ["wolf-owl", "wolf-owl-hare"], "p = ****"),
        ("  p = owl  ", [], "p = owl"),
        ("z " * 100, [], "z " * 80),
    ],
)
def test_a_line_is_shown_without_its_secrets(line: str, secrets: list[str], shown: str) -> None:
    source = Source("f", line)
    for value in secrets:
        source.find("secret-in-code", 1, secret=value)
    assert source.masked(1) == shown
    assert source.masked(99) == shown, "a line behind the end is the last one"


# ---------------------------------------------------------------- an app at work

LEAKY = """
import os
from fastapi import FastAPI, Header, HTTPException
from openai import OpenAI
app = FastAPI()
print("key", os.environ["OPENAI_API_KEY"])

@app.post("/v1/chat")
def chat(body: dict, x_api_key: str = Header()):
    if x_api_key != os.environ["API_KEY"]:
        raise HTTPException(401, "expected " + os.environ["API_KEY"])
    print("message", body["message"][:200])
    try:
        messages = [{"role": "user", "content": body["message"]}]
        reply = OpenAI(max_retries=0).chat.completions.create(model="gpt-4o-mini", messages=messages)
    except Exception as e:
        raise HTTPException(500, str(e))
    return {"response": reply.choices[0].message.content}

@app.get("/admin")
def admin():
    return {"secret": "everything"}
"""


def test_a_leaky_app_is_told_all_its_leaks(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    found = {(f.rule, f.evidence) for f in audit_app("leaky:app", tmp_path, KEPT)}
    assert {
        ("secret-in-response", "POST /v1/chat"),
        ("error-leak", "POST /v1/chat"),
        ("input-crash", "POST /v1/chat"),
        ("no-length-limit", "POST /v1/chat"),
        ("route-without-key", "GET /admin"),
        ("secret-in-log", "key <openai_key>"),
        ("message-in-log", "message <message>"),
        ("docs-open", "GET /docs"),
    } <= found
    assert not {rule for rule, _ in found if rule == "could-not-check"}


def test_our_agent_of_19_2_leaks_nothing_and_shows_its_documentation() -> None:
    found = audit_app("exercise_3_19_2_solution:create_app", FOLDER, KEPT)
    assert {f.rule for f in found} == {"docs-open"}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nothing_of_this_name", "the app did not start: ModuleNotFoundError: No module named 'nothing_of_"),
        ("app = 1", "the app did not start: TypeError: "),
        ("import time; time.sleep(99)", "the app was still busy after 3 s"),
        ("import os; os._exit(3)", "the app did not start: it ended without a word"),
        ("raise SystemExit", "the app did not start: it ended without a word"),
        ("print('one'); raise SystemExit('x' + 'z' * 300)", f"the app did not start: x{'z' * 159}"),
    ],
)
def test_failure_an_app_that_does_not_start_could_not_be_checked(code: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(code + "\n")
    (finding,) = audit_app("broken:app", tmp_path, KEPT, timeout_s=3)
    assert (finding.rule, finding.line) == ("could-not-check", 1)
    assert finding.evidence.startswith(words)
    assert len(finding.evidence) <= len("the app did not start: ") + 160


def test_abuse_an_app_under_audit_reaches_no_other_machine(tmp_path: Path) -> None:
    (tmp_path / "caller.py").write_text(
        "import socket\nfrom fastapi import FastAPI\napp = FastAPI()\n"
        "@app.get('/health')\ndef health():\n    socket.create_connection(('192.0.2.1', 80), 1)\n"
    )
    found = audit_app("caller:app", tmp_path, KEPT, timeout_s=20)
    assert {f.rule for f in found} == {"docs-open", "could-not-check"}


CANARIES = Canaries("sk-canary", "key-canary", "message-canary", "model-canary")


@pytest.mark.parametrize(
    ("exchange", "found"),
    [
        (Exchange("no key", "GET", "/health", 200, ""), []),
        (Exchange("no key", "GET", "/", 200, ""), []),
        (Exchange("no key", "GET", "/metrics", 200, ""), ["route-without-key"]),
        (Exchange("no key", "POST", "/v1/chat", 399, ""), ["route-without-key"]),
        (Exchange("no key", "POST", "/v1/chat", 400, ""), []),
        (Exchange("no key", "POST", "/v1/chat", 401, "not key-canary"), ["secret-in-response"]),
        (Exchange("model fails", "POST", "/v1/chat", 502, "model-canary"), ["error-leak"]),
        (Exchange("model fails", "POST", "/v1/chat", 500, 'File "/app/my.py", line 3'), ["error-leak"]),
        (Exchange("model fails", "POST", "/v1/chat", 500, "Internal Server Error"), []),
        (Exchange("empty body", "POST", "/v1/chat", 500, ""), ["input-crash"]),
        (Exchange("empty body", "POST", "/v1/chat", 422, ""), []),
        (Exchange("long", "POST", "/v1/chat", 200, ""), ["no-length-limit"]),
        (Exchange("long", "POST", "/v1/chat", 413, ""), []),
        (Exchange("chat", "POST", "/v1/chat", 429, ""), ["could-not-check"]),
        (Exchange("long", "POST", "/v1/chat", 0, "no answer"), ["could-not-check"]),
    ],
)
def test_an_answer_is_judged_by_what_came_out(exchange: Exchange, found: list[str]) -> None:
    answered = Exchange("chat", "POST", "/v1/other", 200, "")
    assert [f.rule for f in judge("a:app", [answered, exchange], "", CANARIES)] == found


@pytest.mark.parametrize(
    "exchanges", [[], [Exchange("chat", "POST", "/v1/chat", 404, ""), Exchange("no key", "GET", "/health", 200, "")]]
)
def test_a_walk_without_an_answered_chat_says_what_it_did_not_see(exchanges: list[Exchange]) -> None:
    (finding,) = judge("a:app", exchanges, "quiet", CANARIES)
    assert finding.rule == "could-not-check"
    assert "no chat was answered" in finding.evidence


def test_a_finding_of_an_app_says_what_came() -> None:
    answered = Exchange("chat", "POST", "/v1/other", 200, "")
    refused, told = Exchange("chat", "GET", "/a", 401, ""), Exchange("chat", "GET", "/b", 401, "who are you?")
    found = judge("a:app", [answered, refused, told, Exchange("long", "GET", "/c", 200, "")], "", CANARIES)
    assert [f.detail for f in found] == ["chat: 401", "chat: who are you?", "100,000 characters were accepted"]


def test_canaries_are_new_each_time_and_stay_what_they_are() -> None:
    one, other = asdict(Canaries.fresh()), asdict(Canaries.fresh())
    assert len({*one.values(), *other.values()}) == 8
    assert one["openai_key"].startswith("sk-")
    for fixed in (CANARIES, Exchange("chat", "GET", "/", 200, "")):
        with pytest.raises(FrozenInstanceError):
            fixed.path = "x"  # type: ignore[misc, union-attr]


def test_the_model_of_an_audit_answers_and_fails_as_the_api_does() -> None:
    before = set(threading.enumerate())
    with model_server(CANARIES) as url, OpenAI(api_key="-", base_url=url, max_retries=0) as client:
        asked = client.chat.completions.with_raw_response
        raw = asked.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hi"}])
        with pytest.raises(BadRequestError, match="model-canary"):
            asked.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "please fail"}])
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()
    assert (raw.status_code, raw.headers["Content-Type"]) == (200, "application/json")
    assert int(raw.headers["Content-Length"]) == len(raw.content)
    assert json.loads(raw.content) == {
        "id": "c", "object": "chat.completion", "created": 0, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a reply"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip
    assert raw.parse().choices[0].message.content == "a reply"


# ---------------------------------------------------------------- reports, to the word


def test_markdown_says_what_was_found_accepted_and_seen() -> None:
    low, worst = Finding("unpinned", "r.txt", 2, "a`b"), Finding("secret-in-code", "a.py", 9, "k", detail="one\ntwo")
    taken = Finding("debug-on", "a.py", 3, "x")
    uses = (("a.py", 4, "os.environ[`A`]"),)
    text = to_markdown(Audit((low, taken, worst), 7, uses, {taken.id: "on purpose"}, "our:app"))
    assert "7 files read; 1 critical, 1 low; 1 accepted." in text
    assert "The app our:app was started" in text
    assert "In this order:" in text
    assert "### 1. " in text.partition(worst.id)[0]
    assert "### 2. " in text.partition(worst.id)[2].partition(low.id)[0]
    assert "- seen: `k`: one two\n" in text
    assert "- seen: `a'b`\n" in text
    assert "- accepted: on purpose\n" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Remediation plan", "## Accepted", "## Where keys are used", "## What this audit cannot see"
    ]  # fmt: skip
    assert "- `a.py:4` `os.environ['A']`\n" in text
    assert text.endswith("(TLS, proxies).\n")


def test_markdown_of_nothing_says_so() -> None:
    text = to_markdown(Audit((), 1))
    assert "1 files read; nothing to fix; 0 accepted." in text
    assert "Nothing is open." in text
    assert "No app was started (--app)" in text
    assert "## Accepted" not in text
    assert "## Where keys are used" not in text


def test_json_and_sarif_carry_the_reason_of_what_is_accepted_alone() -> None:
    kept, taken = Finding("secret-in-code", "a.py", 9, "k"), Finding("debug-on", "a.py", 3, "x")
    report = Audit((kept, taken), 7, (), {taken.id: "on purpose"})
    data = json.loads(to_json(report))
    assert (data["files"], data["open"]) == (7, 1)
    assert [entry.get("reason") for entry in data["findings"]] == [None, "on purpose"]
    first, second = json.loads(to_sarif(report))["runs"][0]["results"]
    assert first["locations"][0]["physicalLocation"]["region"] == {"startLine": 9}
    assert first["level"] == "error"
    assert "suppressions" not in first
    assert second["suppressions"] == [{"kind": "external", "justification": "on purpose"}]
    assert to_json(report).startswith('{\n  "files"'), "two spaces, for people who read it"
    assert to_sarif(report).startswith('{\n  "version"')


def test_a_finding_tells_how_to_see_it_oneself() -> None:
    about = Finding("route-without-key", "our:app", 1, "GET /admin /x", 3).as_dict()
    assert "nth" not in about
    assert about["verify"] == "curl -si -X GET $URL/admin /x", "only the first path follows the address"


def test_what_was_found_stays_as_it_was_found() -> None:
    for found in (Finding("unpinned", "f", 1, "a"), Audit((), 1)):
        with pytest.raises(FrozenInstanceError):
            found.files = 2  # type: ignore[misc, union-attr]


def test_equal_findings_have_ids_of_their_own() -> None:
    assert re.fullmatch("unpinned-[0-9a-f]{8}", Finding("unpinned", "f", 1, "a").id)
    assert Finding("unpinned", "f", 1, "a").id == Finding("unpinned", "f", 1, "a", 0).id
    first, second, third = Source("f", "a\na\na"), Source("f", "a"), Finding("unpinned", "f", 1, "a  b")
    for line in (3, 1, 2):
        first.find("unpinned", line)
    assert [(f.line, f.nth) for f in first.findings()] == [(1, 0), (2, 1), (3, 2)]
    assert second.findings() == []
    assert third.id == Finding("unpinned", "f", 9, "a b").id, "an id knows neither the line nor the spaces"


@pytest.mark.parametrize(
    ("exchange", "found"),
    [
        (Exchange("chat", "POST", "/v1/chat", 401, ""), ["could-not-check"]),
        (Exchange("chat", "POST", "/v1/chat", 403, ""), ["could-not-check"]),
        (Exchange("chat", "POST", "/v1/chat", 404, ""), []),
        (Exchange("no key", "POST", "/v1/chat", 403, ""), []),
        (Exchange("no key", "GET", "/v1/x", 0, ""), ["could-not-check"]),
        (Exchange("long", "POST", "/v1/chat", 399, ""), ["no-length-limit"]),
        (Exchange("long", "POST", "/v1/chat", 400, ""), []),
        (Exchange("long", "POST", "/v1/chat", 500, ""), ["input-crash"]),
        (Exchange("wrong types", "POST", "/v1/chat", 500, ""), ["input-crash"]),
        (Exchange("model fails", "POST", "/v1/chat", 500, ""), []),
        (Exchange("chat", "POST", "/v1/chat", 200, "sk-canary"), ["secret-in-response"]),
        (Exchange("no key", "GET", "/docs", 200, ""), ["docs-open"]),
    ],
)
def test_edge_an_answer_is_judged_by_probe_and_status(exchange: Exchange, found: list[str]) -> None:
    answered = Exchange("chat", "POST", "/v1/other", 200, "")
    assert [f.rule for f in judge("a:app", [answered, exchange], "", CANARIES)] == found


def test_what_was_printed_is_judged_and_shown_without_canaries() -> None:
    answered = Exchange("chat", "POST", "/v1/chat", 200, "")
    output = f"up\n  key sk-canary {'z' * 200}\nkey-canary\n message-canary \n"
    found = judge("a:app", [answered, answered], output, CANARIES)
    assert [(f.rule, f.line, f.nth) for f in found] == [
        ("secret-in-log", 1, 0), ("secret-in-log", 1, 0), ("message-in-log", 1, 0)
    ]  # fmt: skip
    assert [f.evidence for f in found] == [f"key <openai_key> {'z' * 143}", "<api_key>", "<message>"]


def test_a_finding_of_an_answer_shows_the_answer_cut_short() -> None:
    answered = Exchange("chat", "POST", "/v1/chat", 200, "key-canary " + "z" * 200)
    (finding,) = judge("a:app", [answered, answered], "", CANARIES)
    assert (finding.evidence, finding.detail) == ("POST /v1/chat", "<api_key> " + "z" * 150)


# ---------------------------------------------------------------- our own report


def test_the_report_beside_the_script_is_what_one_command_writes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exercise.main([]) == 0, "something new is open: fix it, or accept it with a reason"
    said = capsys.readouterr().out
    assert said.isascii()
    written = (FOLDER / "exercise_1_19_7_solution.md").read_text(encoding="utf-8")

    def stable(text: str) -> str:  # lines of shared/ move, and files join it
        return re.sub(r":\d+`|^\d+ files", "", text.partition("## Where keys are used")[0], flags=re.MULTILINE)

    assert stable(said) == stable(written), (
        "write it again: python exercise_1_19_7_solution.py > exercise_1_19_7_solution.md"
    )


def test_the_script_runs_from_any_directory(tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("eval(x)\n")
    command = [sys.executable, str(FOLDER / "exercise_1_19_7_solution.py"), "agent.py"]
    ran = subprocess.run(command, cwd=tmp_path, env=KEPT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "`agent.py:1`" in ran.stdout
