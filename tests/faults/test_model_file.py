"""Hot reload with several workers: the model file is replaced by an invalid one and by a valid one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_client import Health, SyncClient
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_each_worker_rejects_an_invalid_model_file_and_loads_a_valid_one(tmp_path: Path) -> None:
    path = tiny_model.build(tmp_path / "model.onnx")
    with ServerProcess("--port=0", "--log-format=json", "--workers=2", f"--model={path}") as server:
        port = server.wait_for("serving", workers=2)["port"]
        path.write_bytes(b"garbage" * 10_000)
        rejected = {server.wait_for("new model rejected")["worker"] for _ in range(2)}
        assert len(rejected) == 2
        with SyncClient(f"127.0.0.1:{port}") as client:
            assert client.health() is Health.SERVING
            assert client.list_models()[0].version == "1.0.0"
        valid = tiny_model.build(
            tmp_path / "valid.onnx", document={**tiny_model.METADATA, "version": "2.0.0"}
        )
        valid.replace(path)
        assert {server.wait_for("model replaced", version="2.0.0")["worker"] for _ in range(2)} == rejected
        with SyncClient(f"127.0.0.1:{port}") as client:
            assert client.list_models()[0].version == "2.0.0"
        server.process.terminate()
        assert server.process.wait(DEADLINE_S) == 0
