from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from earmark_spotter import ModelError, SpotterModel
from onnx import TensorProto, helper
from support import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_model_is_loaded_with_its_metadata(tiny_model_path: Path) -> None:
    model = SpotterModel.load(tiny_model_path)
    assert model.metadata.name == "tiny"
    assert model.sha256 == hashlib.sha256(tiny_model_path.read_bytes()).hexdigest()
    assert model.state_size == tiny_model.STATE_SIZE
    np.testing.assert_allclose(model.initial_state, tiny_model.initial_state(), atol=1e-6)


def test_the_initial_state_is_read_only(tiny: SpotterModel) -> None:
    with pytest.raises(ValueError, match="read-only"):
        tiny.initial_state[0] = 1
    states = tiny.initial_states(2)
    states[0] = 7  # the row belongs to the caller
    assert tiny.initial_states(1)[0, 0] == 0


def test_each_stream_of_a_batch_gets_the_scores_that_it_gets_alone(tiny: SpotterModel) -> None:
    pcm = np.stack([tiny_model.recording([(0.1, name)], 0.4) for name in tiny_model.TONES_HZ])
    states = tiny.initial_states(3)
    scores, next_states = tiny.step(pcm, states)
    assert scores.shape == (3, 20, 5)
    assert next_states.shape == (3, tiny.state_size)
    np.testing.assert_array_equal(states, tiny.initial_states(3))  # the inputs are not modified
    for i in range(3):
        alone, next_alone = tiny.step(pcm[i : i + 1], tiny.initial_states(1))
        np.testing.assert_allclose(scores[i], alone[0], atol=1e-5)
        np.testing.assert_allclose(next_states[i], next_alone[0], atol=1e-5)
    np.testing.assert_allclose(scores.sum(axis=2), 1, atol=1e-5)


def test_digital_silence_does_not_change_the_initial_state(tiny: SpotterModel) -> None:
    scores, state = tiny.step(np.zeros((1, 3200), np.float32), tiny.initial_states(1))
    np.testing.assert_allclose(state[0], tiny.initial_state, atol=1e-6)
    np.testing.assert_allclose(scores[0], np.broadcast_to(scores[0, 0], scores[0].shape), atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 1000])
def test_a_file_that_is_not_a_model_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        SpotterModel.load(path)


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark_spotter.model._MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "large.onnx"
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(ModelError, match=r"large\.onnx has more than 1 MiB"):
        SpotterModel.load(path)


def test_a_missing_file_and_a_directory_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        SpotterModel.load(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        SpotterModel.load(tmp_path)


def test_a_truncated_file_is_rejected(tmp_path: Path, tiny_model_path: Path) -> None:
    content = tiny_model_path.read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError):
        SpotterModel.load(path)


@pytest.mark.parametrize("key", ["earmark", "earmark_initial_state"])
def test_missing_metadata_is_named(tmp_path: Path, key: str) -> None:
    path = tiny_model.build(tmp_path / "m.onnx", drop=(key,))
    with pytest.raises(ModelError, match=f"`{key}`"):
        SpotterModel.load(path)


@pytest.mark.parametrize(
    "state",
    [
        "",
        "not base64!",
        "AAA=",
        np.zeros(3, np.float32),
        np.zeros(tiny_model.STATE_SIZE + 1, np.float32),
        np.full(tiny_model.STATE_SIZE, np.nan, np.float32),
        np.full(tiny_model.STATE_SIZE, np.inf, np.float32),
    ],
)
def test_an_invalid_initial_state_is_named(tmp_path: Path, state: Any) -> None:
    path = tiny_model.build(tmp_path / "m.onnx", state=state)
    with pytest.raises(ModelError, match="earmark_initial_state"):
        SpotterModel.load(path)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("labels", lambda d: d["labels"].append("more")),
        ("labels", lambda d: d["labels"].remove("_silence_")),
        ("frame_samples", lambda d: d.update(frame_samples=160)),
        ("frame_samples", lambda d: d.update(frame_samples=640, step_samples=640)),
        ("step_samples", lambda d: d.update(frame_samples=100, step_samples=100)),
        ("threshold", lambda d: d["keywords"]["low"].update(threshold=3)),
        ("receptive_field_samples", lambda d: d.update(receptive_field_samples=320)),
    ],
)
def test_metadata_that_contradict_the_graph_are_rejected(
    tmp_path: Path, field: str, change: Callable[[dict[str, Any]], None]
) -> None:
    document = tiny_model.metadata()
    change(document)
    path = tiny_model.build(tmp_path / "m.onnx", document=document)
    with pytest.raises(ModelError, match=field):
        SpotterModel.load(path)


def test_an_initial_state_that_is_not_silence_is_rejected(tmp_path: Path) -> None:
    state = tiny_model.initial_state()
    state[tiny_model.TAIL_SAMPLES :] = np.tile([0, 0, 1, 0, 0], 2)  # as if `low` had just been said
    path = tiny_model.build(tmp_path / "m.onnx", state=state)
    with pytest.raises(ModelError, match="not its state after digital silence"):
        SpotterModel.load(path)


def rewritten(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    model = onnx.load(path)
    change(model)
    target = path.with_name("rewritten.onnx")
    target.write_bytes(model.SerializeToString())
    return target


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "audio_in"
    model.graph.node[3].input[1] = "audio_in"


def drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def fix_length(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 320


def add_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, [1]))


def scores_not_probabilities(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Softmax").op_type = "Sigmoid"


def weights_in_another_file(model: onnx.ModelProto) -> None:
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "kernel")
    Path("weights.bin").write_bytes(kernel.raw_data)  # in the working directory, where it could be read
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value="weights.bin")


def operator_of_a_library(model: onnx.ModelProto) -> None:
    next(node for node in model.graph.node if node.op_type == "Softmax").domain = "somebody.else"
    model.opset_import.append(helper.make_opsetid("somebody.else", 1))


def state_for_two_streams_only(model: onnx.ModelProto) -> None:
    shape = next(tensor for tensor in model.graph.initializer if tensor.name == "flat_shape")
    shape.raw_data = np.array([2, shape.dims[0] * 5], np.int64).tobytes()


def more_memory_than_there_is(model: onnx.ModelProto) -> None:
    graph = model.graph
    graph.initializer.append(helper.make_tensor("size", TensorProto.INT64, [1], [1 << 50]))
    next(node for node in graph.node if node.output[0] == "scores").output[0] = "small"
    graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["large"]))
    graph.node.append(helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0))
    graph.node.append(helper.make_node("Add", ["small", "sum"], ["scores"]))


def scores_not_finite(model: onnx.ModelProto) -> None:
    floor = next(tensor for tensor in model.graph.initializer if tensor.name == "floor")
    floor.raw_data = np.float32(-1).tobytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_input, "audio_in"),
        (drop_output, "next_state"),
        (fix_batch, "pcm"),
        (fix_length, "pcm"),
        (add_input, "extra"),
        (scores_not_probabilities, "scores"),
        (scores_not_finite, "next_state"),
        (weights_in_another_file, r"kernel.*External data"),
        (operator_of_a_library, r"somebody\.else"),
        (state_for_two_streams_only, "next_state.*fixed"),
        (more_memory_than_there_is, "does not run"),
    ],
)
def test_an_invalid_graph_is_rejected(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[onnx.ModelProto], None],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(tiny_model.build(tmp_path / "m.onnx"), change)
    if change is scores_not_probabilities:
        model = onnx.load(path)
        softmax = next(node for node in model.graph.node if node.op_type == "Sigmoid")
        del softmax.attribute[:]
        path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=named):
        SpotterModel.load(path)


@pytest.mark.parametrize("text", [b"earmark_initial_state", b"next_state", b"tiny"])
def test_text_that_is_not_utf_8_is_rejected_without_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: bytes
) -> None:
    path = tiny_model.build(tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content.replace(text, text[:-1] + b"\xf3"))
    with pytest.raises(ModelError, match=r"m\.onnx"):
        SpotterModel.load(path)
    assert capfd.readouterr() == ("", "")
