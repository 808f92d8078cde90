"""The Docker commands in the documents, with a real container engine."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from support.paths import REPOSITORY
from support.ports import free_port
from support.readme_commands import Checkout, shown, unless_slow

if TYPE_CHECKING:
    from pathlib import Path

BUILT_FROM = ("client", "protos", "requirements", "scripts", "server", "training")
BUILT_FROM_FILES = (
    ".dockerignore",
    "Dockerfile",
    "LICENSE",
    "NOTICE",
    "README.md",
    "compose.yaml",
    "hatch_build.py",
    "pyproject.toml",
)
WITHIN_S = 1800


def output_of(*command: str) -> str:
    """Return the output of a command, or nothing if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


@pytest.fixture
def compose() -> str:
    if not output_of("docker", "info", "--format", "{{.ServerVersion}}").strip():
        pytest.skip("no container engine answers: start Docker, or set DOCKER_HOST")
    if output_of("docker", "compose", "version"):
        return "docker compose"
    if output_of("docker-compose", "version"):
        return "docker-compose"
    pytest.skip("no compose: install docker-compose-plugin")


def without_a_bridge(checkout: Checkout, compose: str, port: int, **own: str) -> None:
    """Remove the networks from compose.yaml where the engine has none, as inside of another container."""
    path = checkout.folder / "compose.yaml"
    whole = yaml.safe_load(checkout.run(f"{compose} --profile client config 2>/dev/null", **own))
    services = {name: whole["services"][name] for name in ("server", "client")}
    for service in services.values():
        service.pop("ports", None)
        service.pop("networks", None)
        service["network_mode"] = service["build"]["network"] = "host"
    services["server"]["environment"]["EARMARK_PORT"] = str(port)
    services["client"]["environment"]["EARMARK_SERVER"] = f"localhost:{port}"
    path.write_text(yaml.safe_dump({"services": services}))


@unless_slow
def test_compose_serves_its_client(compose: str, tmp_path: Path) -> None:
    checkout = Checkout.make(tmp_path)
    for name in (*BUILT_FROM, *BUILT_FROM_FILES):
        (tmp_path / name).unlink(missing_ok=True)
        copy = shutil.copytree if name in BUILT_FROM else shutil.copy
        copy(REPOSITORY / name, tmp_path / name)
    tmp_path.chmod(0o755)  # another user reads it in the container
    # The health check must not fail on a busy machine.
    patient = {"services": {"server": {"healthcheck": {"interval": "1s", "timeout": "60s"}}}}
    (tmp_path / "compose.override.yaml").write_text(yaml.safe_dump(patient))
    port = free_port()
    own = {"COMPOSE_PROJECT_NAME": f"readme{port}", "EARMARK_PUBLISH": f"127.0.0.1:{port}"}
    own |= {"EARMARK_IMAGE": f"readme-{port}", "EARMARK_CLIENT_IMAGE": f"readme-{port}-client"}
    if not output_of("docker", "network", "ls", "--quiet", "--filter", "driver=bridge"):
        without_a_bridge(checkout, compose, port, **own)
    serving, spotting = (
        one.replace("docker compose", compose) for one in shown("test_compose_serves_its_client")
    )
    try:
        checkout.run(serving, timeout_s=WITHIN_S, **own)
        output = checkout.run(f"{spotting} </dev/null", timeout_s=WITHIN_S, **own)
        assert "recording.wav: 22.88 s of audio, 13 detections" in output
    finally:
        checkout.run(f"{compose} --profile client down --rmi all --volumes", timeout_s=WITHIN_S, **own)
