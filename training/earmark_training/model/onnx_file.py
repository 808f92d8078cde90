"""Model files: a network as an ONNX graph with metadata, and a network rebuilt from such a file."""

from __future__ import annotations

import base64
import json
import logging
import warnings
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx
import torch
from earmark_spotter import SpotterModel
from earmark_spotter.metadata import SCHEMA_VERSION
from earmark_spotter.model import INITIAL_STATE_KEY, METADATA_KEY
from earmark_spotter.verifier import ENCODED_VERIFIER_KEY, VERIFIER_KEY
from google.protobuf.message import DecodeError

from earmark_training.errors import ExportError
from earmark_training.model.network import Network, Shape
from earmark_training.model.speech_embedding import EmbeddingNetwork
from earmark_training.output_files import replace_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

ServedNetwork: TypeAlias = Network | EmbeddingNetwork
"""A network with `shape`, `forward(pcm, state)`, `state_size` and `silent_state`, as it is served."""

TOLERANCE = 1e-4
"""The largest accepted difference between streamed scores and those that torch computes in one pass."""

_SEED = 3

NETWORK_KEY = "earmark_network"
"""ONNX metadata key of the network's shape, from which `load_network` rebuilds it.

Its entry `shared` lists the weights that the exporter did not keep under their own name, with the name under
which the graph has them: they equal another weight, or are transposed. The name is null for a weight that is
all zeros and is not in the graph.
"""


def load_network(path: Path) -> Network:
    """Rebuild the network of a model file, with batch normalisation folded, ready to be fine-tuned.

    Raises ExportError for a file that does not contain such a network.
    """
    try:
        graph = onnx.load(path)
        properties = {p.key: p.value for p in graph.metadata_props}
        document = json.loads(properties[NETWORK_KEY])
        shared = document.pop("shared", {})
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        network = Network(Shape(**fields)).folded()
        weights = {w.name: onnx.numpy_helper.to_array(w) for w in graph.graph.initializer}
        state = {}
        for name, value in network.state_dict().items():
            graph_name = shared.get(name, name)
            array = np.zeros(value.shape, np.float32) if graph_name is None else weights[graph_name]
            state[name] = torch.from_numpy(_trainable_layout(array, value.shape).copy())
        network.load_state_dict(state)
    except (DecodeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ExportError(
            f"{path} contains no network that can be trained further: use a file that earmark-train wrote"
        ) from error
    return network


def to_onnx(network: ServedNetwork) -> onnx.ModelProto:
    """Export the network to an ONNX graph for any batch size and any whole number of frames.

    The file of a `Network` can be trained further: see `load_network`.
    """
    batch, frames = torch.export.Dim("batch", min=1), torch.export.Dim("frames", min=1)
    example = (torch.zeros(2, 3 * network.shape.frame_samples), torch.zeros(2, network.state_size))
    graph = export_graph(
        network,
        example,
        input_names=["pcm", "state"],
        output_names=["scores", "next_state"],
        dynamic_shapes={"pcm": {0: batch, 1: network.shape.frame_samples * frames}, "state": {0: batch}},
    )
    if not isinstance(network, Network):
        return graph
    document = asdict(network.shape)
    if shared := _shared_weights(network, graph):
        document["shared"] = shared
    onnx.helper.set_model_props(graph, {NETWORK_KEY: json.dumps(document)})
    return graph


def export_graph(
    network: torch.nn.Module,
    example: tuple[torch.Tensor, ...],
    *,
    input_names: list[str],
    output_names: list[str],
    dynamic_shapes: Any,
) -> onnx.ModelProto:
    """Export a network to an ONNX graph without metadata; the arguments are those of `torch.onnx.export`."""
    # torch's exporter warns about its own code, and about packages that are not needed here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            example,
            dynamo=True,
            input_names=input_names,
            output_names=output_names,
            dynamic_shapes=dynamic_shapes,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    # The exporter records the source lines of each node: half of the file, with paths of this machine.
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.ClearField("metadata_props")
    del graph.graph.metadata_props[:]
    return graph


def _shared_weights(network: Network, graph: onnx.ModelProto) -> dict[str, str | None]:
    """Return the weights that the exporter did not keep under their own names: see NETWORK_KEY."""
    kept = {w.name: onnx.numpy_helper.to_array(w) for w in graph.graph.initializer}
    shared: dict[str, str | None] = {}
    for name, tensor in network.state_dict().items():
        if name in kept:
            continue
        value = tensor.numpy()
        equal = (
            other
            for other, array in kept.items()
            if array.size == value.size and np.array_equal(value, _trainable_layout(array, value.shape))
        )
        shared[name] = next(equal, None)
        if shared[name] is None and value.any():
            raise ExportError(f"the exported graph does not contain the weight {name}")
    return shared


def _trainable_layout(array: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a weight of the graph, where a pointwise one is a transposed image kernel, as it is trained."""
    if array.ndim == 4 and len(shape) == 2:
        array = array.transpose(3, 2, 1, 0)  # (taps, 1, inputs, outputs)
    return array.reshape(shape)


def verifier_graphs(graph: onnx.ModelProto) -> dict[str, bytes]:
    """Return the ONNX files of the verifier's graphs in a model file, by their keys."""
    keys = (VERIFIER_KEY, ENCODED_VERIFIER_KEY)
    return {p.key: base64.b64decode(p.value) for p in graph.metadata_props if p.key in keys}


def pack(
    graph: onnx.ModelProto,
    state: NDArray[np.float32],
    metadata: ModelMetadata,
    out: Path | None = None,
    *,
    verifier: bytes | None = None,
    encoded_verifier: bytes | None = None,
) -> SpotterModel:
    """Return the model of a graph, its initial state and its metadata; write it to `out` if given.

    `verifier` and `encoded_verifier`: the ONNX files of the verifier's graphs, if the metadata has one.
    The model is loaded as a server would load it, so an invalid one raises the spotter's errors. Raises
    OutputError if it cannot be written.
    """
    # The keywords of a loaded model are a read-only view, which `asdict` cannot copy.
    metadata = replace(metadata, keywords=dict(metadata.keywords))
    document = {"schema_version": SCHEMA_VERSION, **asdict(metadata)}
    packed = onnx.ModelProto()
    packed.CopyFrom(graph)
    network = {p.key: p.value for p in graph.metadata_props if p.key == NETWORK_KEY}
    for key, content in ((VERIFIER_KEY, verifier), (ENCODED_VERIFIER_KEY, encoded_verifier)):
        if content is not None:
            network[key] = base64.b64encode(content).decode()
    del packed.metadata_props[:]
    onnx.helper.set_model_props(
        packed,
        {
            **network,
            METADATA_KEY: json.dumps(document),
            INITIAL_STATE_KEY: base64.b64encode(state.astype("<f4").tobytes()).decode(),
        },
    )
    content = packed.SerializeToString()
    model = SpotterModel(content)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(out, content)
    return model


@torch.no_grad()
def check_streaming(
    network: ServedNetwork, model: SpotterModel, pieces: Sequence[NDArray[np.float32]]
) -> None:
    """Compare the scores of audio streamed in steps of random length with those of torch in one pass.

    Raises ExportError if they differ by more than TOLERANCE.
    """
    rng = np.random.default_rng(_SEED)
    frame = network.shape.frame_samples
    pcm = np.concatenate(pieces)
    pcm = pcm[: len(pcm) // frame * frame]
    expected, _ = network(torch.from_numpy(pcm[None]), network.silent_state())
    state, position, worst = model.initial_states(1), 0, 0.0
    while position < len(pcm):
        count = min(int(rng.integers(1, 12)) * frame, len(pcm) - position)
        scores, state = model.step(pcm[None, position : position + count], state)
        at = position // frame
        worst = max(worst, float(np.abs(scores[0] - expected[0, at : at + count // frame].numpy()).max()))
        position += count
    log.info("largest difference between streamed scores and torch's: %.1e", worst)
    if not worst <= TOLERANCE:
        raise ExportError(f"streamed scores differ from torch's by {worst:.1e}, more than {TOLERANCE:.0e}")
