"""The verifier of a keyword model: trained on windows at the peaks of the first network."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from earmark_spotter import SpotterModel
from earmark_spotter.speech_encoder import bundled_speech_encoder
from earmark_training.keyword.examples import KeywordExampleMaker
from earmark_training.keyword.fine_tune import FIRST_KEYWORD
from earmark_training.keyword.metadata import initial_metadata
from earmark_training.keyword.verifier_training import (
    Windows,
    _mix,
    train_verifier,
    verifier_work,
    with_verifier,
)
from earmark_training.model.encoded_verifier import encode
from earmark_training.model.onnx_file import load_network, pack
from support.synthetic_words import BANANA, COMPUTER, say
from support.tiny_training import FINE_TUNE_RECIPE

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Network

RECIPE = replace(FINE_TUNE_RECIPE, mined_hours=0.01, verifier_batches=8, verifier_steps=100)
TINY_RECIPE = replace(RECIPE, verifier_batches=1, verifier_steps=10)


@pytest.fixture(scope="module")
def network(base: Path) -> Network:
    return load_network(base).eval()


@pytest.fixture(scope="module")
def model(base: Path, network: Network) -> SpotterModel:
    metadata = initial_metadata(
        ("computer", "banana"), name=None, version="1.0.0", base=SpotterModel.load(base).metadata,
        shape=network.shape, embedding=False, recorded=["computer"], real_speech=True, synthesized=False,
    )  # fmt: skip
    return pack(onnx.load(base), network.silent_state().numpy(), metadata)


@pytest.mark.slow
def test_a_window_ends_with_the_peak_hold_and_lies_at_the_word(
    training_set: TrainingSet, network: Network, model: SpotterModel
):
    maker = KeywordExampleMaker(training_set, network.shape, _mix(RECIPE.mix), seed=1)
    batch = maker.batch(0)
    windows = Windows(model)
    windows.add_examples(batch.pcm.numpy(), batch.keyword.numpy(), batch.target.numpy())
    assert windows.classes == batch.target.any(1).long().tolist()
    assert 0 < sum(windows.classes) < len(windows.classes)
    frame = network.shape.frame_samples
    hold = model.metadata.samples_from_ms(model.metadata.detector.hold_ms)
    row = int(batch.target.any(1).nonzero()[0])
    samples = batch.pcm[row].numpy()
    frames = batch.target[row].nonzero().flatten().tolist()
    first = len(samples) - (batch.target.shape[1] - 1) * frame
    ends = [(first + f * frame) // frame * frame + hold for f in frames]
    candidates = [encode(np.pad(samples[:end], (0, max(0, end - len(samples))))) for end in ends]
    assert any(np.array_equal(windows.features[row], c) for c in candidates)


@pytest.mark.slow
def test_the_verifier_is_reproducible(training_set: TrainingSet, network: Network, model: SpotterModel):
    first, again = (train_verifier(network, model, training_set, TINY_RECIPE) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_the_verifier_tells_the_word_from_others(
    training_set: TrainingSet, network: Network, model: SpotterModel
):
    done: list[float] = []
    verifier = train_verifier(network, model, training_set, RECIPE, count=done.append)
    assert sum(done) == pytest.approx(verifier_work(training_set, RECIPE), rel=0.2)
    own, other = (
        [encode(np.pad(say(word, 70 + i, i), (24_000, 3_200))) for i in range(5)]
        for word in (COMPUTER, BANANA)
    )
    features = torch.from_numpy(np.stack(own + other).astype(np.float32))
    with torch.no_grad():
        scores = verifier(features, torch.full((10,), FIRST_KEYWORD), torch.full((10,), 0.5))
    # An untrained first network proposes any moment, so that the verifier can hardly be certain.
    assert scores[:5].min() > scores[5:].max()


@pytest.mark.slow
def test_helpers_are_classes_of_the_verifier(
    training_set: TrainingSet, network: Network, model: SpotterModel
):
    helpers = [replace(r, text="sentence", word=(0, min(r.length, 8_000))) for r in training_set.speech[:4]]
    with_helpers = replace(training_set, helpers=tuple(helpers))
    verifier = train_verifier(network, model, with_helpers, TINY_RECIPE)
    assert verifier.fc2.out_features == 1 + len(training_set.keywords) + 1


@pytest.mark.slow
def test_the_metadata_name_the_encoder_and_whose_it_is(model: SpotterModel):
    verifier = with_verifier(model.metadata).verifier
    assert verifier is not None
    assert verifier.encoder_sha256 == bundled_speech_encoder().sha256
    assert verifier.certain_score == 1
    assert [s.license for s in model.metadata.training.sources if "Moonshine" in s.name] == ["MIT"]
