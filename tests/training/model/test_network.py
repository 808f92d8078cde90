from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from earmark_training.model.network import Block, Network, Shape

SHAPE = Shape(4, channels=16, kernels=(5, 4, 3), strides=(1, 2, 1))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network(SHAPE)
    with torch.no_grad():
        for block in network.blocks:  # as if trained: an untrained block is the identity
            block.project.norm.weight.fill_(1.0)
        network.train()
        network.logits(network.normalize(network.log_mel(torch.randn(8, 20_000) * 0.1)))
    return network.eval()


def run(network: Network, pcm: torch.Tensor, steps: list[int]) -> torch.Tensor:
    state = network.silent_state().expand(len(pcm), -1)
    scores = []
    for part in pcm.split([s * SHAPE.frame_samples for s in steps], dim=1):
        part_scores, state = network(part, state)
        scores.append(part_scores)
    return torch.cat(scores, dim=1)


def test_a_shape_with_an_unusable_window_is_rejected():
    with pytest.raises(ValueError, match="two hops"):
        Shape(4, window_samples=400)


@torch.no_grad()
@pytest.mark.parametrize("steps", [[1] * 30, [7, 1, 15, 2, 5], [29, 1]])
def test_streamed_scores_equal_those_of_one_pass(network: Network, steps: list[int]):
    pcm = torch.randn(3, 30 * SHAPE.frame_samples) * 0.1
    torch.testing.assert_close(run(network, pcm, steps), run(network, pcm, [30]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_scores_are_probabilities(network: Network):
    scores = run(network, torch.randn(2, 10 * SHAPE.frame_samples), [10])
    assert scores.shape == (2, 10, 4)
    torch.testing.assert_close(scores.sum(-1), torch.ones(2, 10))


@torch.no_grad()
@pytest.mark.parametrize("added_blocks", [1, 3])
def test_unlikely_added_classes_leave_the_scores_of_the_others_as_they_were(
    network: Network, added_blocks: int
):
    torch.manual_seed(1)
    extended = Network(replace(SHAPE, classes=6, added_classes=2, added_blocks=added_blocks))
    missing, unexpected = extended.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"added"}
    assert extended.added is not None
    for block in extended.added.blocks:
        block.project.norm.weight.fill_(1.0)
    extended.added.head.weight.mul_(0.1)
    extended.added.head.bias.fill_(-3.0)
    extended.eval()
    pcm = torch.randn(2, 30 * SHAPE.frame_samples) * 0.1
    before, after = run(network, pcm, [30]), run(extended, pcm, [7, 1, 15, 2, 5])
    torch.testing.assert_close(after[..., :4], before, atol=1e-5, rtol=0)
    torch.testing.assert_close(after, run(extended.folded(), pcm, [30]), atol=1e-5, rtol=0)

    mel = extended.normalize(extended.log_mel(torch.randn(1, 20_000)))
    logits = extended.logits(mel)
    torch.testing.assert_close(logits[..., :4], network.logits(mel), atol=1e-5, rtol=0)
    assert logits.shape[-1] == 6


@torch.no_grad()
def test_the_score_of_an_added_class_is_its_probability_and_lowers_the_others_where_it_is_likely(
    network: Network,
):
    silence, state = torch.zeros(1, 4 * SHAPE.frame_samples), network.silent_state()
    before = network(silence, state)[0][0, -1]
    extended = Network(replace(SHAPE, classes=5, added_classes=1, added_blocks=1)).eval()
    extended.load_state_dict(network.state_dict(), strict=False)
    assert extended.added is not None
    extended.added.head.weight.zero_()
    mel = extended.normalize(extended.log_mel(torch.zeros(1, 60 * SHAPE.frame_samples)))
    others = extended.logits(mel)[0, -1, :4].logsumexp(-1).item()
    for probability, share_left in ((0.3, 1.0), (0.75, 0.5), (0.9, 0.2)):
        extended.added.head.bias.fill_(others + math.log(probability / (1 - probability)))
        after = extended(silence, extended.silent_state())[0][0, -1]
        assert after[4].item() == pytest.approx(probability, abs=1e-4)
        torch.testing.assert_close(after[:4], before * share_left, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("classes", "blocks"), [(1, 0), (0, 1), (1, 4)])
def test_added_classes_need_added_blocks(classes: int, blocks: int):
    with pytest.raises(ValueError, match="added blocks"):
        Shape(4, kernels=(5, 4, 3), strides=(1, 2, 1), added_classes=classes, added_blocks=blocks)


@torch.no_grad()
def test_training_and_serving_compute_the_same(network: Network):
    """The logits that training uses give the streamed scores, smoothed, in frames with a full window."""
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
def test_the_depthwise_layer_has_the_output_and_the_gradients_of_torchs_convolution(kernel: int, stride: int):
    """The training mode has its own forward and backward pass; evaluation uses torch's convolution."""
    block = Block(6, kernel, stride)
    x = torch.randn(kernel - stride + 4 * stride, 3, 6, requires_grad=True)
    results = []
    for training in (True, False):
        block.train(training)
        convolved = block.convolve(x)
        assert convolved.shape == (4, 3, 6)
        gradients = torch.autograd.grad(convolved.square().sum(), (x, block.depthwise))
        results.append((convolved, *gradients))
    for own, torchs in zip(*results, strict=True):
        torch.testing.assert_close(own, torchs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_score_depends_on_the_receptive_field_only(network: Network):
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
def test_silence_does_not_change_the_silent_state(network: Network):
    state = network.silent_state()
    _, after = network(torch.zeros(1, 5 * SHAPE.frame_samples), state)
    torch.testing.assert_close(after, state, atol=1e-5, rtol=1e-5)
