"""The start of a training from a model file, whose layers have no batch normalisation of their own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from earmark_spotter import SpotterModel
from torch import Tensor

from earmark_training.data.vocabulary import UNKNOWN
from earmark_training.errors import RecipeError
from earmark_training.model.onnx_file import load_network

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.data.examples import ExampleMaker
    from earmark_training.model.network import Block, Network, Pointwise, Shape

_BATCHES = 4
_GAIN = math.sqrt(2)  # of the weights that a layer begins with: see `Pointwise`
_NEW_WORD_BIAS = -2.0


def check_start(path: Path, shape: Shape) -> None:
    """Raise RecipeError if a model file's network cannot be the start of one with this shape."""
    found = replace(load_network(path).shape, classes=shape.classes, added_classes=0, added_blocks=0)
    if found != shape:
        raise RecipeError(f"{path} has a network of another shape than the recipe's")


@torch.no_grad()
def copy_network(path: Path, network: Network, labels: tuple[str, ...], maker: ExampleMaker) -> None:
    """Copy the network of a model file into one whose layers have batch normalisation.

    The statistics of each layer are measured on examples, so that both compute the same scores. A keyword
    that the file does not know, or has in blocks of its own, starts as a rarer kind of unknown speech.
    `check_start` has accepted the file.
    """
    served = load_network(path)
    known = SpotterModel.load(path).metadata.labels[: served.shape.classes - served.shape.added_classes]
    network.eval()
    network.mel_mean.copy_(served.mel_mean)
    network.mel_scale.copy_(served.mel_scale)
    mel = network.normalize(torch.cat([maker.batch((i,)).mel for i in range(_BATCHES)]))
    x = torch.relu(_normalized(network.stem, served.stem, network._stacked(mel).transpose(0, 1)))
    for block, old in zip(
        cast("list[Block]", network.blocks), cast("list[Block]", served.blocks), strict=True
    ):
        block.depthwise.copy_(old.depthwise)
        newest = x[block.kernel - 1 :: block.stride]
        hidden = torch.relu(_normalized(block.expand, old.expand, block.convolve(x)))
        x = torch.relu(newest + _normalized(block.project, old.project, hidden))
    head, bias = served.head.weight, cast("Tensor", served.head.bias)
    columns = [known.index(label if label in known else UNKNOWN) for label in labels]
    new = torch.tensor([0.0 if label in known else _NEW_WORD_BIAS for label in labels])
    network.head.weight.copy_(head[:, columns])
    cast("Tensor", network.head.bias).copy_(bias[columns] + new)


def _normalized(layer: Pointwise, folded: Pointwise, x: Tensor) -> Tensor:
    """Copy a folded layer into one with batch normalisation; return its output for x."""
    assert layer.norm is not None
    bias = cast("Tensor", folded.bias)
    # Batch normalisation makes the scale of the weights free, but it scales their updates: as in a new layer.
    size = folded.weight.square().mean(0).sqrt()
    scale = _GAIN / math.sqrt(len(folded.weight)) / size.clamp(min=1e-6)
    layer.weight.copy_(folded.weight * scale)
    y = x @ layer.weight
    variance, mean = torch.var_mean(y.flatten(0, 1), 0)
    deviation = torch.sqrt(variance + layer.norm.eps)
    cast("Tensor", layer.norm.running_mean).copy_(mean)
    cast("Tensor", layer.norm.running_var).copy_(variance)
    layer.norm.weight.copy_(deviation / scale)
    layer.norm.bias.copy_(bias + mean / scale)
    return cast("Tensor", layer(x))
