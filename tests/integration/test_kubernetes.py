"""The manifests in deploy/kubernetes fit the server, its image and Kubernetes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import promql_parser
import pytest
import yaml
from earmark_client import SyncClient, Tls
from earmark_server.command_line import read_settings
from earmark_server.credentials.tokens import add_token
from earmark_server.settings import Settings
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import parser
from support.certificates import Authority
from support.environment import clean_environment
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
TIMEOUT_S = 60


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


DEPLOYMENT = read("deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]
ENVIRONMENT = {one["name"]: one["value"] for one in CONTAINER["env"]}
PORTS = {one["name"]: one["containerPort"] for one in CONTAINER["ports"]}
NAME = {"app.kubernetes.io/name": "earmark"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the container's environment, with secrets as README.md creates them."""
    secrets = tmp_path_factory.mktemp("secrets")
    pair = Authority(secrets / "made").sign("server")
    (secrets / "made/token").write_text(add_token("robot", str(secrets / "made/tokens")))
    (secrets / "made/keys").write_text("k" * 64)
    files = {
        "tls": {"tls.crt": pair.certificate, "tls.key": pair.key},  # the names that `create secret tls` uses
        "tokens": {"tokens": secrets / "made/tokens"},
        "resume-key": {"keys": secrets / "made/keys"},
    }
    for volume in POD["volumes"]:
        folder = secrets / volume["name"]
        folder.mkdir()
        for name, content in files[volume["name"]].items():
            shutil.copy(content, folder / name)
    assert {one["mountPath"] for one in CONTAINER["volumeMounts"]} == {f"/secrets/{name}" for name in files}
    return {key: value.replace("/secrets", str(secrets)) for key, value in ENVIRONMENT.items()}


@pytest.fixture(scope="module")
def deployed(environment: dict[str, str], tiny_model_path: Path) -> Iterator[dict[str, int]]:
    """Run a server with the deployment's environment and probe; yield its ports."""
    command = [sys.executable, "-m", "earmark_server", f"--model={tiny_model_path}"]
    free = {name: free_port() for name in PORTS}
    ports = {f"EARMARK_{name.upper()}_PORT": str(free[name]) for name in ("health", "metrics")}
    ports |= {"EARMARK_PORT": str(free["grpc"]), "EARMARK_HOST": "127.0.0.1"}
    with subprocess.Popen(command, env=clean_environment(**{**environment, **ports})) as process:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{free['health']}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                status = None
                while status != health_pb2.HealthCheckResponse.SERVING:
                    assert process.poll() is None
                    request = health_pb2.HealthCheckRequest()
                    status = stub.Check(request, timeout=TIMEOUT_S, wait_for_ready=True).status
            yield free
        finally:
            process.terminate()
            assert process.wait(TIMEOUT_S) == 0


@pytest.fixture(scope="module")
def series(deployed: dict[str, int]) -> set[str]:
    """Return the names of the server's metrics."""
    address = f"http://127.0.0.1:{deployed['metrics']}/metrics"
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
        families = parser.text_string_to_metric_families(answer.read().decode())
    return {one.name for family in families for one in family.samples}


def test_a_client_with_round_robin_connects(deployed: dict[str, int], environment: dict[str, str]) -> None:
    made = Path(environment["EARMARK_TOKEN_FILE"]).parents[1] / "made"
    with SyncClient(
        f"127.0.0.1:{deployed['grpc']}",
        round_robin=True,
        tls=Tls(ca=made / "ca.pem"),
        token=(made / "token").read_text(),
    ) as client:
        assert [model.name for model in client.list_models()] == ["tiny"]


def test_every_variable_is_a_setting_with_a_valid_value(environment: dict[str, str]) -> None:
    known = {f"EARMARK_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert set(environment) <= known
    settings = read_settings([], environment)
    assert (settings.port, settings.health_port, settings.metrics_port) == (
        PORTS["grpc"],
        PORTS["health"],
        PORTS["metrics"],
    )
    assert not settings.insecure


def test_every_port_named_is_one_of_the_container() -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["grpc"]["port"] == PORTS["health"]
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(PORTS["metrics"])
    assert [one["targetPort"] for one in read("service.yaml")["spec"]["ports"]] == ["grpc"]
    allowed = [
        port["port"] for rule in read("network-policy.yaml")["spec"]["ingress"] for port in rule["ports"]
    ]
    assert set(allowed) <= set(PORTS)


def test_all_selectors_match_exactly_the_servers() -> None:
    assert DEPLOYMENT["spec"]["template"]["metadata"]["labels"] == NAME
    assert DEPLOYMENT["spec"]["selector"] == {"matchLabels": NAME}
    assert read("service.yaml")["spec"]["selector"] == NAME
    assert read("disruption-budget.yaml")["spec"]["selector"] == {"matchLabels": NAME}
    assert read("network-policy.yaml")["spec"]["podSelector"] == {"matchLabels": NAME}
    target = read("autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (DEPLOYMENT["kind"], DEPLOYMENT["metadata"]["name"])


def test_a_pod_has_time_to_leave_the_service_and_to_drain(environment: dict[str, str]) -> None:
    settings = read_settings([], environment)
    leaves_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert leaves_s > CONTAINER["readinessProbe"]["periodSeconds"]
    assert POD["terminationGracePeriodSeconds"] >= leaves_s + settings.drain_grace_s + 5


def test_the_watchdog_comes_before_the_liveness_probe(environment: dict[str, str]) -> None:
    settings, probe = read_settings([], environment), CONTAINER["livenessProbe"]
    # A failure may start just before a probe.
    soonest_s = (probe["failureThreshold"] - 1) * probe["periodSeconds"]
    assert soonest_s > settings.stall_timeout_s + settings.stall_exit_s


def test_a_pod_runs_as_the_user_of_the_image_with_a_read_only_file_system() -> None:
    users = set(re.findall(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    context = POD["securityContext"]
    assert users == {(str(context["runAsUser"]), str(context["runAsGroup"]))}
    assert context["runAsNonRoot"]
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert CONTAINER["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(volume.keys() == {"name", "secret"} for volume in POD["volumes"])


def test_the_readme_creates_every_secret() -> None:
    text = (FOLDER / "README.md").read_text()
    made = set(re.findall(r"kubectl create secret \S+ (\S+)", text))
    assert {volume["secret"]["secretName"] for volume in POD["volumes"]} == made
    named = set(re.findall(r"^\| `([\w.-]+)` \|", text, re.MULTILINE))
    assert named == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_autoscaler_uses_metrics_of_the_server(series: set[str]) -> None:
    made = set()
    for rule in read("prometheus-adapter.yaml")["rules"]["custom"]:
        asked = promql_parser.parse(rule["seriesQuery"])
        assert asked.name in series
        query = rule["metricsQuery"].replace("<<.Series>>", asked.name)
        query = query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="default"')
        promql_parser.parse(query)
        naming = rule.get("name", {"matches": "^(.*)$", "as": "${1}"})
        made.add(re.sub(naming["matches"], naming["as"].replace("${1}", r"\1"), asked.name))
    assert {one["pods"]["metric"]["name"] for one in read("autoscaler.yaml")["spec"]["metrics"]} == made


def test_servers_are_added_before_they_reject_streams(environment: dict[str, str]) -> None:
    settings = read_settings([], environment)
    targets = {
        one["pods"]["metric"]["name"]: one["pods"]["target"]["averageValue"]
        for one in read("autoscaler.yaml")["spec"]["metrics"]
    }
    assert int(targets["earmark_streams_open"]) < settings.max_streams
    assert float(targets["earmark_queue_wait_seconds_p50"].rstrip("m")) / 1000 < settings.max_lag_s


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if shutil.which(tool[0]) is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    path = tmp_path_factory.mktemp("built") / "all.yaml"
    path.write_bytes(subprocess.run([*tool, str(FOLDER)], check=True, capture_output=True).stdout)
    return path


def test_kustomize_builds_valid_manifests(built: Path) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = [one["kind"] for one in yaml.safe_load_all(built.read_text())]
    assert sorted(kinds) == [
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    ]
