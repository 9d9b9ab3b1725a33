"""The files that deploy the service: valid by schema and by the tools that read them, and true to the service."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]
from exercise_2_19_4_solution import Metrics

from production.settings import Production
from production.stores import CLEANUP_S
from tests.chapter import FOLDER, ROOT
from tests.kit import dockerfile

DEPLOY = FOLDER / "production" / "deploy"
KUBERNETES = DEPLOY / "kubernetes.yaml"
COMPOSE = DEPLOY / "compose.yml"
SCHEMAS = "1.37"
STOP_S = Production.notice_s + Production.drain_s + CLEANUP_S  # the budget that production/app.py makes of them


def needs(tool: str) -> str:
    found = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"no {tool} here")
    return found


def seconds(written: str) -> float:
    """Return what Compose reads in `1m15s`."""
    units = {"h": 3600, "m": 60, "s": 1}
    return float(sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", written)))


# ---------------------------------------------------------------- Kubernetes


def manifests() -> dict[str, Any]:
    documents = list(yaml.safe_load_all(KUBERNETES.read_text(encoding="utf-8")))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents), "one of a kind"
    return kinds


def pod() -> Any:
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def test_the_manifests_are_valid_by_schema_and_a_slip_is_not() -> None:
    documents = manifests()
    assert set(documents) == {
        "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"
    }  # fmt: skip
    for document in documents.values():
        kubernetes_validate.validate(document, SCHEMAS, strict=True)
    slip = documents["Deployment"]
    slip["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["slep"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(slip, SCHEMAS, strict=True)


def test_a_pod_stops_within_its_grace() -> None:
    (container,) = pod()["containers"]
    before_sigterm = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container["readinessProbe"]
    noticed = readiness["periodSeconds"] * readiness["failureThreshold"]
    assert before_sigterm + STOP_S < pod()["terminationGracePeriodSeconds"]
    assert noticed <= before_sigterm + Production.drain_s, "the endpoints know before the door closes"


def test_a_pod_has_no_rights_and_knows_its_limits() -> None:
    (container,) = pod()["containers"]
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] == 10001
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(container["resources"][kind])
    assert all("sizeLimit" in volume.get("emptyDir", {}) for volume in pod()["volumes"])


def test_readiness_and_liveness_ask_different_things() -> None:
    (container,) = pod()["containers"]
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready"}
    named = {container["ports"][0]["name"]}
    assert {container[f"{kind}Probe"]["httpGet"]["port"] for kind in paths} == named
    assert manifests()["Service"]["spec"]["ports"][0]["targetPort"] in named


def test_everything_points_at_the_same_pods_and_keys_come_from_a_secret() -> None:
    labels = manifests()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests()["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests()["Service"]["spec"]["selector"] == labels
    assert manifests()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests()["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    target = manifests()["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", manifests()["Deployment"]["metadata"]["name"])
    (container,) = pod()["containers"]
    assert {"secretRef": {"name": "agent-service"}} in container["envFrom"]
    assert not [name for name in manifests()["ConfigMap"]["data"] if re.search("KEY|URL|SECRET|PASSWORD", name)]
    assert "Secret" not in manifests()


# ---------------------------------------------------------------- Compose and the image


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def test_the_scale_profile_has_two_instances_their_stores_and_a_proxy() -> None:
    scaled = {name for name, service in services().items() if service["profiles"] == ["scale"]}
    assert scaled == {"app1", "app2", "nginx", "redis", "postgres"}
    for name in ("app1", "app2"):
        environment = services()[name]["environment"]
        assert "@postgres:5432/" in environment["DATABASE_URL"] and environment["REDIS_URL"].startswith(
            "redis://redis:"
        )
        assert services()[name]["depends_on"] == {
            key: {"condition": "service_healthy"} for key in ("redis", "postgres")
        }
    assert set(services()["nginx"]["depends_on"]) == {"app1", "app2"}
    assert all("healthcheck" in services()[name] for name in ("redis", "postgres", "nginx"))
    assert "noeviction" in services()["redis"]["command"] and "--appendonly" in services()["redis"]["command"]
    assert set(re.findall(r"server (\w+):8000", (DEPLOY / "upstream.conf").read_text(encoding="utf-8"))) == {
        "app1", "app2"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["app", "app1", "app2"])
def test_an_instance_stops_within_its_grace_and_has_no_rights(name: str) -> None:
    service = services()[name]
    assert seconds(service["stop_grace_period"]) > STOP_S
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"] and service["pids_limit"]


def test_only_this_machine_reaches_what_is_published() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert not services()["redis"].get("ports") and not services()["postgres"].get("ports")


def test_files_that_compose_mounts_exist() -> None:
    mounts = [mount for service in services().values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert len(files) == 7
    for file in files:
        assert (DEPLOY / file).is_file(), file


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    docker = needs("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no compose")
    given = {"POSTGRES_PASSWORD": "p4ss", "VERSION": "abc", "OPENAI_API_KEY": "sk-x"}
    command = [docker, "compose", "-f", str(COMPOSE), "--profile", "*", "config", "--format", "json"]
    run = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    config = json.loads(run.stdout)
    app = config["services"]["app1"]
    assert app["environment"]["DATABASE_URL"] == "postgresql://agent:p4ss@postgres:5432/agent"
    assert app["environment"]["OPENAI_API_KEY"] == "sk-x"
    assert Path(app["build"]["context"]) == ROOT
    assert (ROOT / app["build"]["dockerfile"]).is_file()


def test_the_image_runs_without_root_and_copies_what_exists() -> None:
    last = dockerfile.read(DEPLOY / "Dockerfile").final()
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert last.user == "10001:10001"
    assert "/health/live" in text
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line


# ---------------------------------------------------------------- nginx


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def nginx(tmp_path: Path, port: int) -> Iterator[Callable[[str], str]]:
    """Start nginx with our configuration, on a port and in a folder of its own; give it instances, get its address."""
    program, running = needs("nginx"), list[subprocess.Popen[bytes]]()

    def start(upstream: str) -> str:
        text = (DEPLOY / "nginx.conf").read_text(encoding="utf-8").replace("/tmp/", f"{tmp_path}/")
        text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/dev/stdout", str(tmp_path / "log"))
        (tmp_path / "nginx.conf").write_text(text.replace("worker_processes auto", "worker_processes 1"))
        (tmp_path / "upstream.conf").write_text(upstream)
        command = [program, "-c", str(tmp_path / "nginx.conf"), "-g", "daemon off;"]
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        for _ in range(200):
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=5)
                break
            except httpx.TransportError:
                assert running[0].poll() is None, "nginx ended"
        return f"http://127.0.0.1:{port}"

    yield start
    for process in running:
        process.terminate()
        process.wait()


def test_without_an_instance_nginx_refuses_like_a_draining_service(nginx: Callable[[str], str], tmp_path: Path) -> None:
    url = nginx("server 127.0.0.1:9;")
    answer = httpx.post(f"{url}/v1/chat", json={"message": "hello"})
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["X-Request-ID"]
    assert "/" not in answer.headers["Server"], "it does not tell its version"
    for line in (tmp_path / "log").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["status"] == 503


def test_nginx_asks_the_next_instance_and_passes_on_what_it_should(nginx: Callable[[str], str]) -> None:
    seen: list[dict[str, str]] = []

    class Instance(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(dict(self.headers))
            status = 502 if self.path == "/model-error" else 200
            self.send_response(status)
            self.send_header("X-Request-ID", "given-by-the-service")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Instance)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = nginx(f"server 127.0.0.1:9 max_fails=1 fail_timeout=2s; server 127.0.0.1:{server.server_port};")
        claimed = {"X-Forwarded-For": "6.6.6.6", "X-API-Key": "a-key"}
        answers = [httpx.post(f"{url}/v1/chat", json={}, headers=claimed) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 6, "one of two is gone, and nobody notices"
        assert answers[0].headers["X-Request-ID"] == "given-by-the-service"
        last = seen[-1]
        assert (last["X-Forwarded-For"], last["X-API-Key"]) == ("127.0.0.1", "a-key")
        error = httpx.post(f"{url}/model-error", json={})
        assert (error.status_code, error.text) == (502, "ok"), "the service's own errors pass unchanged"
        assert httpx.post(f"{url}/v1/chat", content=b"x" * (1 << 21)).status_code == 413
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# ---------------------------------------------------------------- Prometheus and Grafana


def exposed() -> set[str]:
    """Return the names of the metrics that the service shows to Prometheus."""
    metrics = Metrics()
    metrics.record("POST", "/v1/chat", 502, 1.0, "502 model_unavailable at POST /v1/chat")
    metrics.record_tokens("caller", "c-1", (1, 2))
    lines = [line for line in metrics.prometheus().splitlines() if not line.startswith("#")]
    return {re.split(r"[{ ]", line)[0] for line in lines}


def asked_for(expression: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    bare = re.sub(r"\b(?:by|without) ?\([^)]*\)|\[[^\]]*\]|\{[^}]*\}", "", bare)
    return {name for name in re.findall(r"\b[a-z_]+\b(?! ?\()", bare) if "_" in name or name == "up"}


def dashboard() -> Any:
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text(encoding="utf-8"))


def expressions() -> list[str]:
    """Return what the dashboard asks Prometheus, its variables filled in."""
    targets = [target for panel in dashboard()["panels"] for target in panel["targets"]]
    return [target["expr"].replace("$instance", ".*").replace("$__range", "6h") for target in targets]


def test_the_alerts_are_valid_and_go_off_when_they_should() -> None:
    promtool = needs("promtool")
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        run = subprocess.run([promtool, *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_is_tried_out_and_says_what_to_do() -> None:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    tried = yaml.safe_load((DEPLOY / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    sets_off = {case["alertname"] for test in tried for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert sets_off == {rule["alert"] for rule in group["rules"]}
    for rule in group["rules"]:
        assert set(rule["annotations"]) == {"summary", "action"} and rule["labels"]["severity"] in ("page", "ticket")
        assert asked_for(rule["expr"]) <= exposed() | {"up"}, rule["alert"]


def test_the_configuration_of_prometheus_is_valid(tmp_path: Path) -> None:
    promtool = needs("promtool")
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    key = job.pop("http_headers")  # of Prometheus 3; the promtool of Debian 12 is older
    assert key == {"X-API-Key": {"files": ["/run/secrets/metrics_key"]}}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    command = [promtool, "check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_dashboard_asks_for_what_exists(tmp_path: Path) -> None:
    for expression in expressions():
        assert asked_for(expression) and asked_for(expression) <= exposed() | {"up"}, expression
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    command = [needs("promtool"), "check", "rules", str(tmp_path / "rules.yml")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_dashboard_is_well_formed() -> None:
    board = dashboard()
    panels = board["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert board["uid"] and board["schemaVersion"] >= 39
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, "24 columns wide"
        mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not mine & cells, f"{panel['title']} covers another one"
        cells |= mine
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["datasource"]["uid"] == "${datasource}"
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(panels)))
    assert used <= variables
    provider = yaml.safe_load((DEPLOY / "grafana" / "provider.yml").read_text(encoding="utf-8"))["providers"][0]
    mounted = next(mount for mount in services()["grafana"]["volumes"] if "dashboard.json" in mount)
    assert mounted.split(":")[1].startswith(provider["options"]["path"] + "/")
