from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import onnx
import pytest
import torch
from earmark_training.data.front_end import LOG_FLOOR, LogMel
from earmark_training.model.network import Block, Network, Shape
from earmark_training.model.onnx_file import NETWORK_KEY, load_network, to_onnx
from torchaudio.functional import melscale_fbanks

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = Shape(4, channels=16, kernels=(5, 4, 3), strides=(1, 2, 1))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network(SHAPE)
    with torch.no_grad():
        for block in network.blocks:  # as if trained: a fresh block passes its input on
            block.project.norm.weight.fill_(1.0)
        network.train()
        network.logits(network.normalize(network.log_mel(torch.randn(8, 20_000) * 0.1)))
    return network.eval()


def run(network: Network, pcm: torch.Tensor, steps: list[int]) -> torch.Tensor:
    state = network.silent_state().expand(len(pcm), -1)
    scores = []
    for part in pcm.split([s * SHAPE.frame_samples for s in steps], dim=1):
        found, state = network(part, state)
        scores.append(found)
    return torch.cat(scores, dim=1)


@pytest.mark.parametrize("low_hz", [60.0, 120.0])  # the first bin is an even one, an odd one
def test_log_mel_is_that_of_the_fourier_transform(low_hz: float):
    shape = Shape(4, low_hz=low_hz)
    pcm, n = torch.randn(2, 5 * shape.hop_samples, dtype=torch.float64) * 0.1, shape.window_samples
    frames = pcm.unfold(1, n, shape.hop_samples) * torch.hann_window(n, periodic=False, dtype=torch.float64)
    power = torch.fft.rfft(frames).abs().square()
    mel = melscale_fbanks(
        n // 2 + 1, low_hz, shape.high_hz, shape.mels, shape.sample_rate_hz, norm=None, mel_scale="htk"
    )
    expected = torch.log(power @ mel.double() + LOG_FLOOR).float()
    assert expected.shape == (2, 4, shape.mels)
    torch.testing.assert_close(LogMel(shape.front_end)(pcm.float()), expected, atol=1e-4, rtol=0)


def test_a_window_of_other_than_two_hops_is_refused():
    with pytest.raises(ValueError, match="two hops"):
        Shape(4, window_samples=400)


@torch.no_grad()
@pytest.mark.parametrize("steps", [[1] * 30, [7, 1, 15, 2, 5], [29, 1]])
def test_streamed_scores_equal_one_pass(network: Network, steps: list[int]):
    pcm = torch.randn(3, 30 * SHAPE.frame_samples) * 0.1
    torch.testing.assert_close(run(network, pcm, steps), run(network, pcm, [30]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_scores_are_probabilities(network: Network):
    scores = run(network, torch.randn(2, 10 * SHAPE.frame_samples), [10])
    assert scores.shape == (2, 10, 4)
    torch.testing.assert_close(scores.sum(-1), torch.ones(2, 10))


@torch.no_grad()
def test_training_and_serving_compute_the_same(network: Network):
    """Valid-form logits, as in training, give the streamed scores once the window is full."""
    pcm = torch.randn(1, 60 * SHAPE.frame_samples) * 0.1
    streamed = run(network, pcm, [60])
    mel = network.normalize(
        network.log_mel(torch.nn.functional.pad(pcm, (SHAPE.window_samples - SHAPE.hop_samples, 0)))
    )
    # The mel frames that the last 40 unsmoothed scores depend on, the last mel frame included.
    stride = SHAPE.frame_samples // SHAPE.hop_samples
    valid = network.logits(mel[:, -(SHAPE.mel_frames + 39 * stride) :])
    assert valid.shape[1] == 40
    smoothed = valid.softmax(-1).unfold(1, SHAPE.smoothing_frames, 1).mean(-1)
    torch.testing.assert_close(smoothed, streamed[:, -smoothed.shape[1] :], atol=1e-5, rtol=0)


@torch.no_grad()
def test_folding_batch_normalisation_changes_nothing(network: Network):
    pcm = torch.randn(2, 30 * SHAPE.frame_samples) * 0.1
    folded = network.folded()
    assert not any("norm" in name for name in folded.state_dict())
    torch.testing.assert_close(run(folded, pcm, [30]), run(network, pcm, [30]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (5, 2), (4, 2)])
def test_the_depthwise_layer_learns_as_torchs_own(kernel: int, stride: int):
    """Its own forward and backward pass, used in training, against torch's convolution, used in serving."""
    block = Block(6, kernel, stride)
    x = torch.randn(kernel - stride + 4 * stride, 3, 6, requires_grad=True)
    found = []
    for training in (True, False):
        block.train(training)
        mixed = block.mix(x)
        assert mixed.shape == (4, 3, 6)
        found.append((mixed, *torch.autograd.grad(mixed.square().sum(), (x, block.depthwise))))
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_receptive_field_is_what_it_says(network: Network):
    frames = 60
    pcm = torch.randn(1, frames * SHAPE.frame_samples) * 0.1
    before = run(network, pcm, [frames])[0, -1]
    first = frames * SHAPE.frame_samples - SHAPE.receptive_field_samples
    changed = pcm.clone()
    changed[:, :first] = 0
    torch.testing.assert_close(run(network, changed, [frames])[0, -1], before, atol=1e-6, rtol=0)
    changed[:, first : first + SHAPE.window_samples] = 0
    assert (run(network, changed, [frames])[0, -1] - before).abs().max() > 1e-6


@torch.no_grad()
def test_silence_leaves_the_silent_state_as_it_is(network: Network):
    state = network.silent_state()
    _, after = network(torch.zeros(1, 5 * SHAPE.frame_samples), state)
    torch.testing.assert_close(after, state, atol=1e-5, rtol=1e-5)


def test_equal_weights_which_a_file_has_once_are_found_again(tmp_path: Path):
    fresh = Network(SHAPE).folded()  # all its biases are alike
    graph = to_onnx(fresh)
    assert not {w.name for w in graph.graph.initializer}.issuperset(fresh.state_dict())
    onnx.save(graph, tmp_path / "fresh.onnx")
    found = load_network(tmp_path / "fresh.onnx").state_dict()
    for name, value in fresh.state_dict().items():
        assert torch.equal(found[name], value), name


def test_the_weights_of_a_trained_network_are_found_again(network: Network, tmp_path: Path):
    trained = network.folded()
    onnx.save(to_onnx(trained), tmp_path / "trained.onnx")
    found = load_network(tmp_path / "trained.onnx").state_dict()
    for name, value in trained.state_dict().items():
        assert torch.equal(found[name], value), name


def test_a_file_with_every_weight_by_its_name_can_be_read(network: Network, tmp_path: Path):
    """As the graphs had them that were exported when no weight was turned round."""
    trained = network.folded()
    weights = [onnx.numpy_helper.from_array(v.numpy(), name) for name, v in trained.state_dict().items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "old", [], [], weights))
    onnx.helper.set_model_props(model, {NETWORK_KEY: json.dumps(asdict(SHAPE))})
    onnx.save(model, tmp_path / "old.onnx")
    found = load_network(tmp_path / "old.onnx").state_dict()
    for name, value in trained.state_dict().items():
        assert torch.equal(found[name], value), name
