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
import kubernetes_validate
import promql_parser
import pytest
import yaml
from earmark_cli.command_line import build_parser
from earmark_client import SyncClient, Tls
from earmark_server.command_line import read_settings
from earmark_server.credentials.tokens import add_token
from earmark_server.settings import Settings
from earmark_web.app import make_app
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import parser
from starlette.testclient import TestClient
from support.certificates import Authority
from support.environment import clean_environment
from support.paths import DEMO
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
TIMEOUT_S = 60


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def with_secrets() -> Any:
    """Return the deployment as the overlay `production` patches it: its lists are appended."""
    deployment = read("servers/deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    patch = read("production/secrets.yaml")["spec"]["template"]["spec"]
    for name in ("env", "volumeMounts"):
        pod["containers"][0].setdefault(name, []).extend(patch["containers"][0][name])
    pod["volumes"] = patch["volumes"]
    return deployment


DEPLOYMENT = with_secrets()
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
    assert [one["port"] for one in read("production/pod-monitor.yaml")["spec"]["podMetricsEndpoints"]] == [
        "metrics"
    ]
    assert [one["targetPort"] for one in read("servers/service.yaml")["spec"]["ports"]] == ["grpc"]
    policy = read("production/network-policy.yaml")["spec"]
    allowed = [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert set(allowed) <= set(PORTS)


def test_all_selectors_match_exactly_the_servers() -> None:
    assert DEPLOYMENT["spec"]["template"]["metadata"]["labels"] == NAME
    assert DEPLOYMENT["spec"]["selector"] == {"matchLabels": NAME}
    assert read("servers/service.yaml")["spec"]["selector"] == NAME
    assert read("production/disruption-budget.yaml")["spec"]["selector"] == {"matchLabels": NAME}
    assert read("production/network-policy.yaml")["spec"]["podSelector"] == {"matchLabels": NAME}
    assert read("production/pod-monitor.yaml")["spec"]["selector"] == {"matchLabels": NAME}
    target = read("production/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (DEPLOYMENT["kind"], DEPLOYMENT["metadata"]["name"])


def test_a_pod_has_time_to_leave_the_service_and_to_drain(environment: dict[str, str]) -> None:
    settings = read_settings([], environment)
    leaves_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert leaves_s > CONTAINER["readinessProbe"]["periodSeconds"]
    assert POD["terminationGracePeriodSeconds"] >= leaves_s + settings.drain_grace_s + 10


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
    made = {("secret", name) for name in re.findall(r"kubectl create secret \S+ (\S+)", text)}
    made |= {("configMap", name) for name in re.findall(r"kubectl create configmap (\S+)", text)}
    envoy = read("envoy/deployment.yaml")["spec"]["template"]["spec"]["volumes"]
    used = {("secret", one["secret"]["secretName"]) for one in [*POD["volumes"], *envoy] if "secret" in one}
    used |= {("configMap", one["configMap"]["name"]) for one in envoy if "configMap" in one}
    page = yaml.safe_load(page_overlay()["patches"][0]["patch"])["spec"]["template"]["spec"]
    sources = [one["valueFrom"] for one in page["containers"][0]["env"] if "valueFrom" in one]
    used |= {("secret", one["secretKeyRef"]["name"]) for one in sources}
    used |= {("configMap", one["configMap"]["name"]) for one in page["volumes"]}
    assert made == used


def page_overlay() -> dict[str, Any]:
    """Return the overlay in the README for the page beside servers with TLS and tokens."""
    found = re.search(
        r"```yaml\n(# kustomization\.yaml.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL
    )
    assert found
    overlay: dict[str, Any] = yaml.safe_load(found[1])
    return overlay


def test_the_readme_names_every_file() -> None:
    table, folder = [], ""
    for row in re.findall(r"^\|(.*)\|$", (FOLDER / "README.md").read_text(), re.MULTILINE):
        cells = [re.findall(r"`([\w.-]+)`", cell) for cell in row.split("|")[:2]]
        folder = cells[0][0] if cells[0] else folder
        table += [f"{folder}/{name}" for name in cells[1]]
    files = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.yaml")}
    assert {name for name in table if name.endswith(".yaml")} == {
        name for name in files if not name.endswith("kustomization.yaml")
    }


def test_the_alerts_of_the_operator_are_those_of_prometheus_and_fit_the_scrape() -> None:
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    rule = read("production/prometheus-rule.yaml")
    assert rule["spec"] == alerts, "run scripts/make_prometheus_rule.sh"
    monitor = read("production/pod-monitor.yaml")
    # The label `job` is the value of this label of the pods; without it, it would be the monitor's name.
    job = DEPLOYMENT["spec"]["template"]["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    expressions = " ".join(one["expr"] for group in alerts["groups"] for one in group["rules"])
    assert set(re.findall(r'job="(\w+)"', expressions)) == {job}
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert [one["job_name"] for one in prometheus["scrape_configs"]] == [job]


def test_envoy_finds_its_configuration_and_secrets() -> None:
    configuration = (ROOT / "deploy/envoy/envoy.yaml").read_text()
    (container,) = read("envoy/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    folders = {one["mountPath"] for one in container["volumeMounts"]}
    files = set(re.findall(r"filename: (/\S+)/[\w.]+\}", configuration))
    assert files == folders - {"/config"}
    assert container["args"] == ["-c", "/config/envoy.yaml"]
    assert f"port_value: {container['ports'][0]['containerPort']}" in configuration


def test_the_page_runs_as_its_image_does() -> None:
    (container,) = read("page/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    build_parser().parse_args(["web", "--host", "0.0.0.0", "--insecure", *container["args"]])
    (variable,) = container["env"]
    service = read("servers/service.yaml")
    assert variable == {
        "name": "EARMARK_SERVER",
        "value": f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}",
    }
    assert container["ports"][0]["containerPort"] == 8080


def test_the_page_is_ready_also_while_no_server_is_serving() -> None:
    (container,) = read("page/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    probe = container["readinessProbe"]["httpGet"]
    assert probe["port"] in [port["name"] for port in container["ports"]]
    # As the kubelet asks, by the address of the pod.
    with TestClient(make_app("127.0.0.1:1", sample=DEMO), base_url="http://10.0.0.7:8080") as page:
        assert page.get(probe["path"]).status_code == 200


def test_the_autoscaler_uses_metrics_of_the_server(series: set[str]) -> None:
    made = set()
    for rule in read("production/prometheus-adapter.yaml")["rules"]["custom"]:
        asked = promql_parser.parse(rule["seriesQuery"])
        assert asked.name in series
        query = rule["metricsQuery"].replace("<<.Series>>", asked.name)
        query = query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="default"')
        promql_parser.parse(query)
        naming = rule.get("name", {"matches": "^(.*)$", "as": "${1}"})
        made.add(re.sub(naming["matches"], naming["as"].replace("${1}", r"\1"), asked.name))
    assert {
        one["pods"]["metric"]["name"] for one in read("production/autoscaler.yaml")["spec"]["metrics"]
    } == made


def test_servers_are_added_before_they_reject_streams(environment: dict[str, str]) -> None:
    settings = read_settings([], environment)
    targets = {
        one["pods"]["metric"]["name"]: one["pods"]["target"]["averageValue"]
        for one in read("production/autoscaler.yaml")["spec"]["metrics"]
    }
    assert int(targets["earmark_streams_open"]) < settings.max_streams
    assert float(targets["earmark_queue_wait_seconds_p50"].rstrip("m")) / 1000 < settings.max_lag_s


PRODUCTION = [
    "Deployment",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PodMonitor",
    "PrometheusRule",
    "Service",
]
CUSTOM = {"PodMonitor", "PrometheusRule"}  # of the Prometheus operator: Kubernetes has no schema of them
OVERLAYS = {
    "production": PRODUCTION,
    "trial": ["Deployment", "Deployment", "Service", "Service"],
    "envoy": ["Deployment", "Service"],
}


def build(overlay: Path) -> list[Any]:
    """Return the valid manifests of an overlay."""
    tool = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
    if shutil.which(tool[0]) is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    built = subprocess.run([*tool, str(overlay)], check=True, capture_output=True).stdout
    manifests = list(yaml.safe_load_all(built))
    for one in manifests:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    return manifests


@pytest.mark.slow
def test_the_page_gets_the_credentials_of_the_readme(tmp_path: Path) -> None:
    shutil.copytree(FOLDER / "page", tmp_path / "page")
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay/kustomization.yaml").write_text(yaml.safe_dump(page_overlay()))
    (page,) = (one for one in build(tmp_path / "overlay") if one["kind"] == "Deployment")
    container = page["spec"]["template"]["spec"]["containers"][0]
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert set(environment) == {"EARMARK_SERVER", "EARMARK_CA", "EARMARK_TOKEN"}
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"/tmp", str(Path(environment["EARMARK_CA"]).parent)}


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_valid_manifests(overlay: str) -> None:
    manifests = build(FOLDER / overlay)
    assert sorted(one["kind"] for one in manifests) == OVERLAYS[overlay]
    servers = [
        one for one in manifests if one["metadata"]["name"] == "earmark" and one["kind"] == "Deployment"
    ]
    for server in servers:
        pod = server["spec"]["template"]["spec"]
        environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
        if overlay == "production":
            assert environment == ENVIRONMENT
        else:
            assert "volumes" not in pod
            assert not any("TLS" in name or "TOKEN" in name for name in environment)
