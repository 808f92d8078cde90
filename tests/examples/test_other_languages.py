"""The example clients in other languages, each where its tools are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from earmark_client import SyncClient
from support.deadlines import DEADLINE_S
from support.paths import DEMO, REPOSITORY
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
    with running_server(case) as address:
        arguments = [*command, address, str(REPOSITORY / "protos")]
        done = subprocess.run(
            arguments, check=False, input=case.samples, capture_output=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr
        with SyncClient(address) as reference:
            expected = reference.spot(DEMO).detections
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [keyword for _, _, keyword, _ in lines] == [one.keyword for one in expected]
    for (start, end, _, confidence), one in zip(lines, expected, strict=True):
        shown = [float(start), float(end), float(confidence)]
        assert shown == pytest.approx([one.start_s, one.end_s, one.confidence], abs=0.006)
    # The server is gone. Standard input stays open, as that of a microphone.
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as refused:
        assert refused.stdin is not None
        assert refused.stderr is not None
        try:
            refused.stdin.write(case.samples[:16_000])
            refused.stdin.flush()
            assert refused.wait(DEADLINE_S) == 1
            assert refused.stderr.read()
        finally:
            refused.kill()


@pytest.mark.parametrize("path", ["node/spot.mjs", "go/main.go", "cpp/main.cc", "arbiter.py"])
def test_an_example_is_short(path: str) -> None:
    assert len((EXAMPLES / path).read_text().splitlines()) < 100
