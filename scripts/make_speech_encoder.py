"""Make the speech encoder from that of Moonshine tiny-en, which is in the package moonshine-voice.

    pip download --no-deps moonshine-voice==0.0.63
    python scripts/make_speech_encoder.py moonshine_voice-0.0.63-*.whl [--out FILE]

Moonshine (arXiv 2410.15608, MIT licence) recognizes English speech. Its encoder has 7 million 8-bit weights.
The graph that this script writes has the input pcm [1, 24000], 1.5 s at 16 kHz of any level, and the output
features [1, 30, 288]: the level is normalised, and two frames of the encoder are averaged into one of 48 ms.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

_MEMBER = "moonshine_voice/assets/tiny-en/encoder_model.ort"
_SAMPLES, _FRAMES, _WIDTH = 24_000, 61, 288
_LEVEL, _LOWEST_LEVEL = 0.06, 1e-6  # root mean square, full scale 1


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path, help="the wheel of moonshine-voice 0.0.63")
    parser.add_argument("--out", type=Path, default=Path("server/earmark_spotter/speech_encoder.onnx"))
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        encoder = _as_onnx(wheel.read(_MEMBER))
    _add_input_and_output(encoder.graph)
    encoder = _without_shape_arithmetic(encoder)
    used = {node.domain for node in encoder.graph.node}
    imports = [i for i in encoder.opset_import if i.domain in used]
    del encoder.opset_import[:]
    encoder.opset_import.extend(imports)
    args.out.write_bytes(encoder.SerializeToString())
    return 0


def _as_onnx(content: bytes) -> onnx.ModelProto:
    """Return a file in ONNX Runtime's own format as ONNX."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.save_model_format", "ONNX")
    return _saved(content, options)


def _without_shape_arithmetic(encoder: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with everything computed that only depends on the length of the window."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return _saved(encoder.SerializeToString(), options)


def _saved(content: bytes, options: onnxruntime.SessionOptions) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "encoder.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def _add_input_and_output(graph: onnx.GraphProto) -> None:
    """Replace the encoder's inputs by `pcm`, whose level may be any, and its output by `features`."""
    (hidden,) = (output.name for output in graph.output)
    del graph.input[:], graph.output[:]
    graph.input.append(helper.make_tensor_value_info("pcm", TensorProto.FLOAT, [1, _SAMPLES]))
    graph.output.append(
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, (_FRAMES - 1) // 2, _WIDTH])
    )
    constants = {
        "attention_mask": np.ones((1, _SAMPLES), np.int64),
        "level": np.float32(_LEVEL),
        "lowest_level": np.float32(_LOWEST_LEVEL),
        "lowest_sample": np.float32(-1),
        "highest_sample": np.float32(1),
        "first_frame": np.array([1], np.int64),
        "last_frame": np.array([_FRAMES], np.int64),
        "time": np.array([1], np.int64),
        "pairs": np.array([1, (_FRAMES - 1) // 2, 2, _WIDTH], np.int64),
        "of_a_pair": np.array([2], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    before = [
        helper.make_node("Mul", ["pcm", "pcm"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["power"]),
        helper.make_node("Sqrt", ["power"], ["root_mean_square"]),
        helper.make_node("Max", ["root_mean_square", "lowest_level"], ["found_level"]),
        helper.make_node("Div", ["level", "found_level"], ["gain"]),
        helper.make_node("Mul", ["pcm", "gain"], ["amplified"]),
        helper.make_node("Clip", ["amplified", "lowest_sample", "highest_sample"], ["input_values"]),
    ]
    after = [
        helper.make_node("Slice", [hidden, "first_frame", "last_frame", "time"], ["used_frames"]),
        helper.make_node("Reshape", ["used_frames", "pairs"], ["frame_pairs"]),
        helper.make_node("ReduceMean", ["frame_pairs", "of_a_pair"], ["features"], keepdims=0),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)


if __name__ == "__main__":
    sys.exit(main())
