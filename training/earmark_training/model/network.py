"""The network: PCM to keyword scores, with causal convolutions whose past inputs are an explicit state.

`forward(pcm, state) -> (scores, next_state)` is the whole model as it is served. Each layer over time reads
its past inputs from `state` and returns its part of `next_state`, so a recording that is cut anywhere (at
whole steps) has the same scores as in one pass. The body is a residual stack of depthwise-separable
convolutions over time, as in TC-ResNet (Choi et al. 2019, arXiv 1904.03814) and MatchboxNet (Majumdar and
Ginsburg 2020, arXiv 2004.08531). In training its layout is (time, batch, channels): a pointwise layer is then
one matrix product.

For serving, the body is a sequence of two-dimensional convolutions over an image of batch by time. In its own
blocked layout, ONNX Runtime then fuses bias, shortcut and ReLU into the pointwise convolutions, which are as
fast as matrix products. The past inputs are joined and cut off as (batch, time, channels), the layout of the
state, so the only transpositions are those into and out of the blocked layout.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from earmark_training.data.front_end import FrontEnd, LogMel, ScoreWindow

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Shape:
    """The network's shape. Times are in samples at 16 kHz, mel frames (10 ms), or frames (one score)."""

    classes: int
    sample_rate_hz: int = 16_000
    window_samples: int = 320
    hop_samples: int = 160
    mels: int = 40
    low_hz: float = 60.0
    high_hz: float = 7_600.0
    stem_kernel: int = 5
    stem_stride: int = 2
    channels: int = 144
    kernels: tuple[int, ...] = (7, 7, 5, 5, 5, 5, 5, 5)
    """The kernel size of each block's depthwise layer, in frames of its input."""
    strides: tuple[int, ...] = (1, 2, 1, 1, 1, 1, 1, 1)
    """The factor by which each block reduces the number of frames."""
    smoothing_frames: int = 7
    added_classes: int = 0
    """How many of the classes, the last ones, were added to a trained network: see `Network`."""
    added_blocks: int = 0
    """How many last blocks these have of their own."""
    added_channels: int = 48
    """The channels of these blocks."""

    def __post_init__(self) -> None:
        if (self.added_classes > 0) != (self.added_blocks > 0) or self.added_blocks > len(self.kernels):
            raise ValueError("added classes need added blocks, at most as many as the other classes have")
        _ = self.front_end  # raises ValueError for a window that the front end cannot use

    @property
    def front_end(self) -> FrontEnd:
        """The part of the shape that determines the log-mel features."""
        return FrontEnd(
            sample_rate_hz=self.sample_rate_hz,
            window_samples=self.window_samples,
            hop_samples=self.hop_samples,
            mels=self.mels,
            low_hz=self.low_hz,
            high_hz=self.high_hz,
        )

    @property
    def score_window(self) -> ScoreWindow:
        """The mel frames that one unsmoothed score depends on, and their distance between scores."""
        return ScoreWindow(self.mel_frames, self.frame_samples // self.hop_samples)

    @property
    def frame_samples(self) -> int:
        """Samples from one score to the next."""
        return self.hop_samples * self.stem_stride * math.prod(self.strides)

    @property
    def mel_frames(self) -> int:
        """Mel frames that one unsmoothed score depends on."""
        frames = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            frames = kernel + stride * (frames - 1)
        return self.stem_kernel + self.stem_stride * (frames - 1)

    @property
    def unsmoothed_receptive_field_samples(self) -> int:
        """Samples that one unsmoothed score depends on."""
        return self.window_samples + self.hop_samples * (self.mel_frames - 1)

    @property
    def receptive_field_samples(self) -> int:
        """Samples that one score depends on."""
        return self.unsmoothed_receptive_field_samples + (self.smoothing_frames - 1) * self.frame_samples


def _with_past(past: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (batch, time, ...) with its past inputs before it, and the next past."""
    joined = torch.cat((past, x), dim=1)
    return joined, joined[:, -past.shape[1] :]


def _tap_inputs(x: Tensor, tap: int, taps: int, step: int = 1) -> Tensor:
    """Return the inputs of tap number `tap` of a valid filter with `taps` taps along axis 1.

    The slice's end is counted from the end of the axis, so the graph contains no arithmetic on shapes.
    """
    return x[:, tap : tap - taps + 1 or None : step]


class Pointwise(nn.Module):
    """A matrix product over channels, then batch normalisation, or a bias once that is folded."""

    def __init__(self, inputs: int, outputs: int, *, normalized: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.kaiming_normal_(self.weight.T, nonlinearity="relu")
        self.norm = nn.BatchNorm1d(outputs) if normalized else None
        self.bias = None if normalized else nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) for x (..., inputs)."""
        y = (x @ self.weight).float()  # in training, only the product may be of lower precision
        if self.norm is not None:
            return cast("Tensor", self.norm(y.flatten(0, 1))).view_as(y)
        assert self.bias is not None
        return y + self.bias

    def forward_image(self, image: Tensor, taps: int = 1, stride: int = 1) -> Tensor:
        """Return the layer's output, as in evaluation, for an image (1, inputs / taps, batch, time).

        The inputs of one output frame are `taps` successive frames of the image, `stride` frames further for
        the next one.
        """
        weight, bias = self._affine()
        # ONNX Runtime transposes the weight once, when it loads the file.
        weight = weight.reshape(taps, -1, weight.shape[1]).transpose(0, 2).unsqueeze(2)
        return nn.functional.conv2d(image, weight, bias, stride=(1, stride))

    @torch.no_grad()
    def folded(self) -> Pointwise:
        """Return an equivalent layer, as in evaluation, without batch normalisation."""
        folded = Pointwise(*self.weight.shape, normalized=False)
        weight, bias = self._affine()
        assert folded.bias is not None
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)
        return folded

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias with batch normalisation folded in."""
        if self.norm is None:
            assert self.bias is not None
            return self.weight, self.bias
        mean, variance = cast("Tensor", self.norm.running_mean), cast("Tensor", self.norm.running_var)
        scale = self.norm.weight / torch.sqrt(variance + self.norm.eps)
        return self.weight * scale, self.norm.bias - mean * scale


class _Depthwise(torch.autograd.Function):
    """A valid depthwise convolution over axis 0 of x (time, batch, channels) with taps (kernel, channels).

    It adds in place, which makes training on a CPU three times as fast as with torch's own convolutions.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, taps)
        ctx.stride = stride
        count = x.shape[0] - len(taps) + 1
        y = x[:count:stride] * taps[0]
        for i in range(1, len(taps)):
            y.addcmul_(x[i : i + count : stride], taps[i])
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (dy,), (x, taps) = gradients, ctx.saved_tensors
        count = x.shape[0] - len(taps) + 1
        dx, dtaps = torch.zeros_like(x), torch.empty_like(taps)
        for i in range(len(taps)):
            window = slice(i, i + count, ctx.stride)
            dx[window].addcmul_(dy, taps[i])
            dtaps[i] = (x[window] * dy).sum((0, 1))
        return dx, dtaps, None


class Block(nn.Module):
    """A residual block: a depthwise layer over time and two pointwise layers, with a shortcut."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.channels, self.kernel, self.stride = channels, kernel, stride
        self.past = kernel - stride
        self.depthwise = nn.Parameter(torch.randn(channels, 1, kernel, 1) / math.sqrt(kernel))
        self.expand = Pointwise(channels, channels, normalized=True)
        self.project = Pointwise(channels, channels, normalized=True)
        assert self.project.norm is not None
        nn.init.zeros_(self.project.norm.weight)

    def convolve(self, x: Tensor) -> Tensor:
        """Return the depthwise convolution (time, batch, channels) of x (past + stride * time, ...)."""
        if self.training:
            depthwise = cast("Callable[..., Tensor]", _Depthwise.apply)
            return depthwise(x, self.depthwise[:, 0, :, 0].T, self.stride)
        image = x.permute(2, 0, 1).unsqueeze(0)  # (1, channels, past + stride * time, batch)
        image = nn.functional.conv2d(image, self.depthwise, groups=x.shape[2], stride=(self.stride, 1))
        return image.squeeze(0).permute(1, 2, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return (time, batch, channels) for x (past + stride * time, batch, channels)."""
        newest = x[self.kernel - 1 :: self.stride]
        return torch.relu(newest + self.project(torch.relu(self.expand(self.convolve(x)))))

    def forward_image(self, past: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output, as in evaluation, for its past inputs and an image; and the next past.

        past (1, batch, past, channels), image (1, channels, batch, stride * time) ->
        image (1, channels, batch, time), next past like past.
        """
        channels = image.shape[1]
        joined = torch.cat((past, image.permute(0, 2, 3, 1)), dim=2)
        convolved = nn.functional.conv2d(
            joined.permute(0, 3, 1, 2),
            self.depthwise.transpose(2, 3),
            stride=(1, self.stride),
            groups=channels,
        )
        if self.stride > 1:
            # A convolution that selects every stride-th column: a slice would leave the blocked layout.
            select = torch.eye(self.stride)[-1].expand(channels, 1, 1, -1)
            image = nn.functional.conv2d(image, select, stride=(1, self.stride), groups=channels)
        expanded = torch.relu(self.expand.forward_image(convolved))
        image = torch.relu(image + self.project.forward_image(expanded))
        return image, joined[:, :, -self.past :]


class AddedClasses(nn.Module):
    """The last layers of classes that were added to a trained network: see `Network`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        channels, last = shape.added_channels, slice(-shape.added_blocks, None)
        self.entry = Pointwise(shape.channels, channels, normalized=True)
        self.blocks = nn.ModuleList(
            Block(channels, kernel, stride)
            for kernel, stride in zip(shape.kernels[last], shape.strides[last], strict=True)
        )
        self.head = Pointwise(channels, shape.added_classes, normalized=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (frames, batch, added classes) for the output of the shared blocks."""
        x = torch.relu(self.entry(x))
        for block in self.blocks:
            x = block(x)
        return cast("Tensor", self.head(self.dropout(x)))


def _applied(head: Pointwise, image: Tensor) -> Tensor:
    """Return the logits (batch, time, classes) for an image (1, channels, batch, time)."""
    return cast("Tensor", head(image.squeeze(0).permute(1, 2, 0)))


class Network(nn.Module):
    """The whole model: see the module's docstring.

    Classes that are added to a trained network have last blocks and a head of their own, with fewer channels,
    after the blocks that they share with the others. Training them does not change the logits of the others.
    The score of an added class is its probability among all classes. Those of the others are the
    probabilities without it, and lower only where an added class is more likely than not.
    """

    mel_mean: Tensor
    mel_scale: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.log_mel = LogMel(shape.front_end)
        self.register_buffer("mel_mean", torch.zeros(shape.mels))
        self.register_buffer("mel_scale", torch.ones(shape.mels))
        self.stem = Pointwise(shape.stem_kernel * shape.mels, shape.channels, normalized=True)
        self.blocks = nn.ModuleList(
            Block(shape.channels, kernel, stride)
            for kernel, stride in zip(shape.kernels, shape.strides, strict=True)
        )
        self.head = Pointwise(shape.channels, shape.classes - shape.added_classes, normalized=False)
        self.added = AddedClasses(shape) if shape.added_classes else None
        self.dropout = nn.Dropout(0.1)

    @property
    def _all_blocks(self) -> list[Block]:
        return cast("list[Block]", [*self.blocks, *(self.added.blocks if self.added else ())])

    @property
    def past_sizes(self) -> tuple[int, int, int, int]:
        """The number of floats in the state for the past PCM, log-mel, block inputs and posteriors."""
        s = self.shape
        return (
            s.window_samples - s.hop_samples,
            (s.stem_kernel - s.stem_stride) * s.mels,
            sum(block.past * block.channels for block in self._all_blocks),
            (s.smoothing_frames - 1) * s.classes,
        )

    @property
    def state_size(self) -> int:
        """The number of floats in the state of one stream."""
        return sum(self.past_sizes)

    def normalize(self, mel: Tensor) -> Tensor:
        """Scale log-mel (batch, frames, mels) to zero mean and unit variance over the training data."""
        return (mel - self.mel_mean) * self.mel_scale

    def embed(self, mel: Tensor) -> Tensor:
        """Return the stem's output (time, batch, channels) for normalised log-mel (batch, frames, mels)."""
        return torch.relu(self.stem(self._stacked(mel).transpose(0, 1)))

    def _stacked(self, mel: Tensor) -> Tensor:
        """Return the stem's inputs (batch, time, kernel * mels) for log-mel (batch, mel frames, mels)."""
        s = self.shape
        taps = [_tap_inputs(mel, i, s.stem_kernel, s.stem_stride) for i in range(s.stem_kernel)]
        return torch.cat(taps, -1)

    def body(self, mel: Tensor, *, without_last: int = 0) -> Tensor:
        """Return the head's inputs (frames, batch, channels) for normalised log-mel (batch, frames, mels).

        Only frames whose whole receptive field is in `mel` are computed: the first one depends on the first
        `shape.mel_frames` mel frames, or on fewer if the last `without_last` blocks are left out.
        """
        x = self.embed(mel)
        for block in self.blocks[: len(self.blocks) - without_last]:
            x = block(x)
        return x

    def logits(self, mel: Tensor) -> Tensor:
        """Return the logits (batch, frames, classes) for normalised log-mel, with the frames of `body`."""
        x = shared = self.body(mel, without_last=self.shape.added_blocks)
        for block in self.blocks[len(self.blocks) - self.shape.added_blocks :]:
            x = block(x)
        logits = cast("Tensor", self.head(self.dropout(x)))
        if self.added is not None:
            logits = torch.cat((logits, self.added(shared)), -1)
        return logits.transpose(0, 1)

    def forward(self, pcm: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the scores and the next state of one inference step, as it is served.

        pcm (batch, n * frame_samples), state (batch, state_size) ->
        scores (batch, n, classes), probabilities smoothed over `smoothing_frames`; next_state like state.
        """
        s, blocks = self.shape, self._all_blocks
        # The state is large, so it is split once and joined once.
        pcm_size, mel_size, _, score_size = self.past_sizes
        body_sizes = [block.past * block.channels for block in blocks]
        pcm_past, mel_past, *body_past, score_past = torch.split(
            state, [pcm_size, mel_size, *body_sizes, score_size], dim=1
        )
        pcm, pcm_past = _with_past(pcm_past, pcm)
        mel, mel_past = _with_past(
            mel_past.reshape(-1, s.stem_kernel - s.stem_stride, s.mels), self.normalize(self.log_mel(pcm))
        )
        image = mel.unsqueeze(0).permute(0, 3, 1, 2)  # (1, mels, B, T)
        image = torch.relu(self.stem.forward_image(image, s.stem_kernel, s.stem_stride))

        def run(image: Tensor, first: int, end: int) -> Tensor:
            for i in range(first, end):
                past = body_past[i].reshape(1, -1, blocks[i].past, blocks[i].channels)
                image, past = blocks[i].forward_image(past, image)
                body_past[i] = past.reshape(-1, body_sizes[i])
            return image

        count = len(self.blocks)
        shared = run(image, 0, count - s.added_blocks)
        logits = _applied(self.head, run(shared, count - s.added_blocks, count))
        posteriors = logits.softmax(-1)
        if self.added is not None:
            entry = torch.relu(self.added.entry.forward_image(shared))
            added = _applied(self.added.head, run(entry, count, len(blocks)))
            added = torch.cat((logits, added), -1).softmax(-1)[..., -s.added_classes :]
            none = 1 - added.sum(-1, keepdim=True)
            posteriors = torch.cat((posteriors * (2 * none).clamp(max=1), added), -1)
        window, score_past = _with_past(score_past.reshape(-1, s.smoothing_frames - 1, s.classes), posteriors)
        scores = nn.functional.avg_pool2d(window.unsqueeze(1), (s.smoothing_frames, 1), stride=1).squeeze(1)
        next_state = (pcm_past, mel_past.flatten(1), *body_past, score_past.flatten(1))
        return scores, torch.cat(next_state, dim=1)

    def folded(self) -> Network:
        """Return a copy with every batch normalisation folded into its layer, as it is served."""
        folded = deepcopy(self).eval()
        for parent in list(folded.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, Pointwise):
                    setattr(parent, name, layer.folded())
        return folded.eval()

    @torch.no_grad()
    def silent_state(self) -> Tensor:
        """Return the state (1, state_size) after digital silence longer than the receptive field."""
        frames = self.shape.receptive_field_samples // self.shape.frame_samples + 2
        pcm = torch.zeros(1, frames * self.shape.frame_samples)
        return self.forward(pcm, torch.zeros(1, self.state_size))[1]
