"""A tiny, deterministic keyword model for tests: three tones are its words.

`low` is a tone of 500 Hz, `mid` one of 1500 Hz, `high` one of 3000 Hz; a burst of 60 ms at an
amplitude of 0.1 or more is detected. Written with onnx.helper, it has the interface of a model
file: explicit state (160 samples and two frames of probabilities), smoothed scores, metadata.
"""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from earmark_spotter.speech_encoder import bundled_speech_encoder
from onnx import TensorProto, helper, numpy_helper

RATE_HZ = 16_000
FRAME_SAMPLES = 320
WINDOW_SAMPLES = 480
TAIL_SAMPLES = WINDOW_SAMPLES - FRAME_SAMPLES
SMOOTHED_FRAMES = 3
TONES_HZ = {"low": 500, "mid": 1500, "high": 3000}
LABELS = ("_silence_", "_unknown_", *TONES_HZ)
STATE_SIZE = TAIL_SAMPLES + (SMOOTHED_FRAMES - 1) * len(LABELS)

METADATA: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "version": "1.0.0",
    "labels": list(LABELS),
    "keywords": {
        name: {"threshold": 0.6, "refractory_ms": 500, "end_lag_ms": 20, "duration_ms": 60}
        for name in TONES_HZ
    },
    "sample_rate_hz": RATE_HZ,
    "step_samples": FRAME_SAMPLES,
    "frame_samples": FRAME_SAMPLES,
    "receptive_field_samples": WINDOW_SAMPLES + (SMOOTHED_FRAMES - 1) * FRAME_SAMPLES,
    "detector": {"hold_ms": 100, "separation_ms": 200},
    "metrics": [{"name": "clip_accuracy", "value": 1.0, "description": "on tones, as a fraction"}],
    "training": {
        "sources": [{"name": "tones", "license": "CC0-1.0", "attribution": "nobody"}],
        "commit": "0000000",
    },
}


def metadata() -> dict[str, Any]:
    """Return a copy of the model's metadata document, which the test may change."""
    return copy.deepcopy(METADATA)


def tone(name: str, seconds: float = 0.06, amplitude: float = 0.3, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Return one of the model's words, float32 [n]."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * TONES_HZ[name] * time)).astype(np.float32)


def recording(
    words: list[tuple[float, str]],
    seconds: float,
    *,
    rate_hz: int = RATE_HZ,
    noise: float = 1e-4,
    seed: int = 0,
) -> np.ndarray:
    """Return words at their start times in seconds, in a little noise, float32 [n]."""
    samples = np.random.default_rng(seed).normal(0, noise, round(seconds * rate_hz)).astype(np.float32)
    for start_s, name in words:
        word = tone(name, rate_hz=rate_hz)
        start = round(start_s * rate_hz)
        samples[start : start + len(word)] += word[: len(samples) - start]
    return samples


def silent_probabilities() -> np.ndarray:
    """Return the class probabilities in digital silence, [classes]."""
    logits = _log_energy_to_logits(np.full(len(TONES_HZ), np.log(_FLOOR)))
    exponentials = np.exp(logits - logits.max())
    return (exponentials / exponentials.sum()).astype(np.float32)


def initial_state() -> np.ndarray:
    """Return the state after digital silence, [STATE_SIZE]."""
    frames = np.tile(silent_probabilities(), SMOOTHED_FRAMES - 1)
    return np.concatenate([np.zeros(TAIL_SAMPLES, np.float32), frames])


def build(
    path: str | Path,
    *,
    document: dict[str, Any] | str | None = None,
    state: np.ndarray | str | None = None,
    drop: tuple[str, ...] = (),
    verifier: onnx.ModelProto | str | None = None,
    encoded_verifier: onnx.ModelProto | None = None,
) -> Path:
    """Write the model file; for an invalid one, a test passes another document or state.

    `drop`: ONNX metadata entries to leave out. `verifier` and `encoded_verifier`: the verifier's graphs; the
    first one may be the text of its entry.
    """
    model = _graph()
    text = document if isinstance(document, str) else json.dumps(METADATA if document is None else document)
    graphs = [
        base64.b64encode(graph.SerializeToString()).decode() if isinstance(graph, onnx.ModelProto) else graph
        for graph in (verifier, encoded_verifier)
    ]
    if not isinstance(state, str):
        state = base64.b64encode(
            (initial_state() if state is None else state).astype("<f4").tobytes()
        ).decode()
    entries = {"earmark": text, "earmark_initial_state": state}
    entries |= {"earmark_verifier": graphs[0], "earmark_encoded_verifier": graphs[1]}
    for key, value in entries.items():
        if value is not None and key not in drop:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
    path = Path(path)
    path.write_bytes(model.SerializeToString())
    return path


VERIFIED_SAMPLES = 12_000

VERIFIED_METADATA: dict[str, Any] = {
    **METADATA,
    "verifier": {"window_samples": VERIFIED_SAMPLES, "proposal_threshold": 0.3, "certain_score": 1},
}


def verifier(*, output: str = "final_score", samples: int = VERIFIED_SAMPLES) -> onnx.ModelProto:
    """Return a second network, for VERIFIED_METADATA, whose score falls with the energy of its window.

    A word that follows closely on another one has a lower score than the same word alone, so the score
    depends on all of the window.
    """
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Mul", ["pcm", "pcm"], ["power"]),
        node("ReduceSum", ["power", "time"], ["energy"], keepdims=0),
        node("Cast", ["class"], ["index"], to=TensorProto.FLOAT),
        node("Add", ["energy", "index"], ["sum"]),
        node("Mul", ["sum", "scale"], ["scaled"]),
        node("Exp", ["scaled"], ["factor"]),
        node("Mul", ["score", "factor"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "verifier",
        [
            value("pcm", TensorProto.FLOAT, ["batch", samples]),
            value("class", TensorProto.INT64, ["batch"]),
            value("score", TensorProto.FLOAT, ["batch"]),
        ],
        [value(output, TensorProto.FLOAT, ["batch"])],
        [
            numpy_helper.from_array(np.array([1]), "time"),
            numpy_helper.from_array(np.array(-0.008, np.float32), "scale"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


_FLOOR = 1e-8
_GAIN = 4.0
_LOUD = np.log(4e-4)  # the energy, in amplitude squared, at which a tone is as likely as silence


def _log_energy_to_logits(log_energy: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0, -2.0], _GAIN * (log_energy - _LOUD)])


def _graph() -> onnx.ModelProto:
    # Two filters a tone, cosine and sine under a Hann window: squared and added they are its energy.
    time = np.arange(WINDOW_SAMPLES)
    window = np.hanning(WINDOW_SAMPLES)
    window /= window.sum()
    filters = []
    for frequency in TONES_HZ.values():
        phase = 2 * np.pi * frequency * time / RATE_HZ
        filters += [2 * window * np.cos(phase), 2 * window * np.sin(phase)]
    kernel = np.array(filters)[:, np.newaxis].astype(np.float32)  # [filters, 1, window]
    pairs = np.kron(np.eye(len(TONES_HZ)), np.ones((2, 1))).astype(np.float32)  # [filters, tones]
    to_classes = np.concatenate([np.zeros((len(TONES_HZ), 2)), _GAIN * np.eye(len(TONES_HZ))], axis=1)
    bias = _log_energy_to_logits(np.zeros(len(TONES_HZ)))

    constants = {
        "kernel": kernel,
        "pairs": pairs,
        "to_classes": to_classes.astype(np.float32),
        "bias": bias.astype(np.float32),
        "floor": np.array(_FLOOR, np.float32),
        "third": np.array(1 / SMOOTHED_FRAMES, np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "two": np.array([2]),
        "tail": np.array([TAIL_SAMPLES]),
        "minus_tail": np.array([-TAIL_SAMPLES]),
        "minus_one": np.array([-1]),
        "minus_two": np.array([-2]),
        "end": np.array([np.iinfo(np.int64).max]),
        "frames_shape": np.array([-1, SMOOTHED_FRAMES - 1, len(LABELS)]),
        "flat_shape": np.array([-1, (SMOOTHED_FRAMES - 1) * len(LABELS)]),
    }
    node = helper.make_node
    # The fourth input of a Slice is its axis: time, 1.
    nodes = [
        node("Slice", ["state", "zero", "tail", "one"], ["past_pcm"]),
        node("Slice", ["state", "tail", "end", "one"], ["past_flat"]),
        node("Reshape", ["past_flat", "frames_shape"], ["past_frames"]),
        node("Concat", ["past_pcm", "pcm"], ["audio"], axis=1),
        node("Unsqueeze", ["audio", "one"], ["audio_channel"]),
        node("Conv", ["audio_channel", "kernel"], ["filtered"], strides=[FRAME_SAMPLES]),
        node("Mul", ["filtered", "filtered"], ["squared"]),
        node("Transpose", ["squared"], ["squared_last"], perm=[0, 2, 1]),
        node("MatMul", ["squared_last", "pairs"], ["energy"]),
        node("Add", ["energy", "floor"], ["energy_floored"]),
        node("Log", ["energy_floored"], ["log_energy"]),
        node("MatMul", ["log_energy", "to_classes"], ["weighted"]),
        node("Add", ["weighted", "bias"], ["logits"]),
        node("Softmax", ["logits"], ["frames"], axis=2),
        node("Concat", ["past_frames", "frames"], ["all_frames"], axis=1),
        node("Slice", ["all_frames", "zero", "minus_two", "one"], ["oldest"]),
        node("Slice", ["all_frames", "one", "minus_one", "one"], ["older"]),
        node("Slice", ["all_frames", "two", "end", "one"], ["newest"]),
        node("Sum", ["oldest", "older", "newest"], ["summed"]),
        node("Mul", ["summed", "third"], ["scores"]),
        node("Slice", ["audio", "minus_tail", "end", "one"], ["next_pcm"]),
        node("Slice", ["all_frames", "minus_two", "end", "one"], ["next_frames"]),
        node("Reshape", ["next_frames", "flat_shape"], ["next_flat"]),
        node("Concat", ["next_pcm", "next_flat"], ["next_state"], axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            value("pcm", TensorProto.FLOAT, ["batch", "samples"]),
            value("state", TensorProto.FLOAT, ["batch", STATE_SIZE]),
        ],
        [
            value("scores", TensorProto.FLOAT, ["batch", "frames", len(LABELS)]),
            value("next_state", TensorProto.FLOAT, ["batch", STATE_SIZE]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def encoded_metadata(**verifier: Any) -> dict[str, Any]:
    """Return the metadata of a model whose verifier needs the features of the speech encoder."""
    encoder = bundled_speech_encoder()
    info = {
        "window_samples": encoder.window_samples,
        "proposal_threshold": 0.3,
        "certain_score": 1,
        "encoder_sha256": encoder.sha256,
    }
    return {**METADATA, "verifier": {**info, **verifier}}


def encoded_verifier(*, width: int = 288) -> onnx.ModelProto:
    """Return a graph, for `encoded_metadata()`, whose score falls with the mean power of the features."""
    node, value = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Mul", ["features", "features"], ["power"]),
        node("ReduceMean", ["power"], ["mean_power"], axes=[1, 2], keepdims=0),
        node("Cast", ["class"], ["index"], to=TensorProto.FLOAT),
        node("Add", ["mean_power", "index"], ["sum"]),
        node("Mul", ["sum", "scale"], ["scaled"]),
        node("Exp", ["scaled"], ["factor"]),
        node("Mul", ["score", "factor"], ["final_score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoded_verifier",
        [
            value("features", TensorProto.FLOAT, ["batch", 30, width]),
            value("class", TensorProto.INT64, ["batch"]),
            value("score", TensorProto.FLOAT, ["batch"]),
        ],
        [value("final_score", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(np.array(-0.1, np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model
