"""The example clients in other languages, each where its tools are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.deadlines import DEADLINE_S
from support.paths import REPOSITORY
from support.sample_audio import running_server, speech

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = REPOSITORY / "examples"
NODE_MODULES = REPOSITORY / "tests/integration/node_client/node_modules"
GO_PACKAGES = "/usr/share/doc/golang-github-golang-protobuf-1-5-dev"
GRPC_HEADERS = "/usr/include/grpcpp/grpcpp.h"


def built(name: str, folder: Path, tools: list[str], package: str) -> list[str]:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or not os.path.exists(package):
        pytest.skip(f"not installed: {', '.join(missing) or package}")
    command = ["make", "-C", str(EXAMPLES / name), f"BUILD={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return [str(folder / "spot")]


def node(folder: Path) -> list[str]:
    if shutil.which("node") is None or not NODE_MODULES.exists():
        pytest.skip("no Node, or no packages: tests/integration/test_node_client.py installs them")
    shutil.copy(EXAMPLES / "node/spot.mjs", folder)
    (folder / "node_modules").symlink_to(NODE_MODULES)
    return ["node", str(folder / "spot.mjs")]


def go(folder: Path) -> list[str]:
    return built("go", folder, ["go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"], GO_PACKAGES)


def cpp(folder: Path) -> list[str]:
    return built("cpp", folder, ["g++", "protoc", "grpc_cpp_plugin", "pkg-config"], GRPC_HEADERS)


@pytest.mark.parametrize(
    "client", [node, *(pytest.param(other, marks=pytest.mark.slow) for other in (go, cpp))]
)
def test_the_client_prints_each_detection(client, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    command = client(tmp_path)
    case = speech()
    options = {"capture_output": True, "timeout": DEADLINE_S}
    with running_server(case) as address:
        arguments = [*command, address, str(REPOSITORY / "protos")]
        done = subprocess.run(arguments, check=False, input=case.samples, **options)
        assert done.returncode == 0, done.stderr
        assert [line.split()[2] for line in done.stdout.decode().splitlines()] == [
            keyword for keyword, _ in case.detections()
        ]
    refused = subprocess.run(arguments, check=False, input=b"", **options)
    assert refused.returncode == 1
    assert refused.stderr


@pytest.mark.parametrize("path", ["node/spot.mjs", "go/main.go", "cpp/main.cc", "arbiter.py"])
def test_an_example_is_short(path: str) -> None:
    assert len((EXAMPLES / path).read_text().splitlines()) < 100
