from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import pytest
import torch
from earmark_spotter import SpotterModel
from earmark_training.errors import ExportError, OutputError
from earmark_training.model import onnx_file
from earmark_training.model.checkpoint import load_trained
from earmark_training.model.network import Network, Shape
from earmark_training.model.onnx_file import NETWORK_KEY, load_network, pack, to_onnx

SHAPE = Shape(4, channels=8, kernels=(3,), strides=(1,))


def assert_same_weights(restored: Network, network: Network) -> None:
    weights = restored.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(weights[name], value), name


@pytest.mark.slow
def test_equal_weights_that_a_file_contains_once_are_restored(tmp_path: Path):
    untrained = Network(SHAPE).folded()  # all its biases are equal
    graph = to_onnx(untrained)
    assert not {w.name for w in graph.graph.initializer}.issuperset(untrained.state_dict())
    onnx.save(graph, tmp_path / "untrained.onnx")
    assert_same_weights(load_network(tmp_path / "untrained.onnx"), untrained)


def test_the_weights_of_a_trained_network_are_restored(run: Path, model_path: Path):
    restored = load_network(model_path)
    assert_same_weights(restored, load_trained(run).network.folded())
    assert all(p.requires_grad for p in restored.parameters())


def test_a_restored_network_has_the_same_scores(run: Path, model_path: Path):
    trained, restored = load_trained(run).network, load_network(model_path)
    pcm = torch.randn(1, 20 * trained.shape.frame_samples) * 0.1
    with torch.no_grad():
        (expected, _), (scores, _) = (n(pcm, n.silent_state()) for n in (trained, restored))
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_a_file_with_every_weight_under_its_own_name_is_read(tmp_path: Path):
    """Older exports have no transposed weights."""
    network = Network(SHAPE).folded()
    weights = [onnx.numpy_helper.from_array(v.numpy(), name) for name, v in network.state_dict().items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "old", [], [], weights))
    onnx.helper.set_model_props(model, {NETWORK_KEY: json.dumps(asdict(SHAPE))})
    onnx.save(model, tmp_path / "old.onnx")
    assert_same_weights(load_network(tmp_path / "old.onnx"), network)


def test_a_file_without_a_network_is_rejected(tmp_path: Path, tiny_model_path: Path):
    (tmp_path / "text.onnx").write_text("no model")
    for path in (tmp_path / "text.onnx", tiny_model_path):
        with pytest.raises(ExportError, match="contains no network that can be trained further"):
            load_network(path)


def test_a_model_file_contains_no_paths_of_the_machine(model_path: Path):
    content = model_path.read_bytes()
    for name in (str(Path(onnx_file.__file__).parent), "site-packages", "/home/"):
        assert name.encode() not in content


def test_a_full_disk_keeps_the_older_model_and_leaves_no_part_of_the_new_one(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, graph, out = (
        SpotterModel.load(tiny_model_path),
        onnx.load(tiny_model_path),
        tmp_path / "model.onnx",
    )
    pack(graph, model.initial_state, model.metadata, out)
    older = out.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"model\.onnx cannot be written: No space left on device"):
        pack(graph, model.initial_state, replace(model.metadata, name="newer"), out)
    assert out.read_bytes() == older
    assert list(tmp_path.iterdir()) == [out]
