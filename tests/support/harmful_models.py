"""Model files that harm the process that loads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path


def endless_model(path: Path) -> bytes:
    """Build a model whose first inference never ends; `path` is overwritten."""
    model = onnx.load(tiny_model.build(path))
    value, node = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [node("Identity", ["on"], ["still_on"]), node("Identity", ["past"], ["future"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("on", TensorProto.BOOL, []),
            value("past", TensorProto.FLOAT, None),
        ],
        [value("still_on", TensorProto.BOOL, []), value("future", TensorProto.FLOAT, None)],
    )
    graph = model.graph
    graph.initializer.append(helper.make_tensor("count", TensorProto.INT64, [], [1 << 62]))
    graph.initializer.append(helper.make_tensor("begin", TensorProto.BOOL, [], [True]))
    next(one for one in graph.node if one.output[0] == "scores").output[0] = "first"
    graph.node.append(node("Loop", ["count", "begin", "first"], ["scores"], body=body))
    return model.SerializeToString()


def crashing_model(path: Path) -> bytes:
    """Build a model that ends the process with SIGFPE on x86; elsewhere it is only invalid.

    The quotient of the smallest number and -1 has no 64 bits. `path` is overwritten.
    """
    model = onnx.load(tiny_model.build(path))
    graph = model.graph
    graph.initializer.append(helper.make_tensor("smallest", TensorProto.INT64, [1], [-(1 << 63)]))
    graph.initializer.append(helper.make_tensor("minus_one", TensorProto.INT64, [1], [-1]))
    next(one for one in graph.node if one.output[0] == "scores").output[0] = "first"
    graph.node.append(helper.make_node("Div", ["smallest", "minus_one"], ["quotient"]))
    graph.node.append(helper.make_node("Cast", ["quotient"], ["added"], to=TensorProto.FLOAT))
    graph.node.append(helper.make_node("Add", ["first", "added"], ["scores"]))
    return model.SerializeToString()
