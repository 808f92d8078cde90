"""The SHA-256 of a model file: it is logged, and it can be pinned."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING

import pytest
from earmark_server.settings import Settings, SettingsError
from earmark_spotter import ModelError, SpotterModel
from support import tiny_model
from support.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "0" * 64


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_sha256_is_logged_and_can_be_pinned(tiny_model_path: Path) -> None:
    pin = sha256(tiny_model_path)
    arguments = ["--port=0", "--log-format=json", f"--model={tiny_model_path}"]
    with ServerProcess(*arguments, f"--model-sha256={pin.upper()}") as server:
        loaded = server.wait_for("model loaded")
        assert (loaded["model"], loaded["sha256"]) == ("tiny", pin)
        server.wait_for("serving")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_another_file_is_rejected_at_start_up(workers: int, tiny_model_path: Path) -> None:
    arguments = ["--port=0", f"--model={tiny_model_path}", f"--workers={workers}"]
    with ServerProcess(*arguments, EARMARK_MODEL_SHA256=OTHER) as server:
        code, said = server.end()
    assert code == 1
    assert f"SHA-256 of the model file is {sha256(tiny_model_path)}, but {OTHER} is required" in said
    assert "Traceback" not in said


def test_another_file_is_rejected_by_hot_reload(tmp_path: Path, tiny_model_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model_path.read_bytes())
    other = tiny_model.build(tmp_path / "other.onnx", document={**tiny_model.METADATA, "version": "9"})
    assert sha256(other) != sha256(path)
    arguments = ["--port=0", "--log-format=json", f"--model={path}", f"--model-sha256={sha256(path)}"]
    with ServerProcess(*arguments) as server:
        server.wait_for("serving")
        other.replace(path)
        assert "is required" in server.wait_for("new model rejected")["problem"]


def test_the_bundled_model_can_be_pinned_too() -> None:
    content = (resources.files("earmark_spotter") / "models" / "default.onnx").read_bytes()
    pin = hashlib.sha256(content).hexdigest()
    assert SpotterModel.load(sha256=pin).sha256 == pin
    with pytest.raises(ModelError, match="is required"):
        SpotterModel.load(sha256=OTHER)


def test_a_file_with_another_sha256_is_not_parsed(tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="is required"):
        SpotterModel.load(bad, sha256=OTHER)


def test_each_model_has_its_own_pin(tiny_model_path: Path) -> None:
    model = (str(tiny_model_path),) * 2
    assert Settings(model=model, model_sha256=(OTHER, OTHER)).model_sha256 == (OTHER, OTHER)
    for wrong in ((OTHER,), (OTHER,) * 3):
        with pytest.raises(SettingsError, match="one value for each of 2 models"):
            Settings(model=model, model_sha256=wrong)
    with pytest.raises(SettingsError, match="64 hexadecimal digits, but is 'abc'"):
        Settings(model_sha256=("abc",))
