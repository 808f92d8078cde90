from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from earmark_training.keyword.examples import KeywordExampleMaker, KeywordMix
from earmark_training.model.network import Network
from support.synthetic_words import RATE
from support.tiny_training import BASE_SHAPE, FINE_TUNE_RECIPE

if TYPE_CHECKING:
    from earmark_training.keyword.training_set import TrainingSet

pytestmark = pytest.mark.usefixtures("few_sounds")


@pytest.mark.slow
def test_the_same_seed_and_step_make_the_same_batch(training_set: TrainingSet):
    maker = KeywordExampleMaker(training_set, BASE_SHAPE, FINE_TUNE_RECIPE.mix, seed=1)
    first, again, other = maker.batch(3), maker.batch(3), maker.batch(4)
    assert torch.equal(first.pcm, again.pcm)
    assert not torch.equal(first.pcm, other.pcm)


def test_the_keyword_is_a_target_after_its_end_and_nowhere_else(training_set: TrainingSet):
    mix = KeywordMix(
        size=40, keyword=0.5, part=0.25, noise=0.05, add_noise=0.0, speech_before=0.0, speech_after=0.0
    )
    batch = KeywordExampleMaker(training_set, BASE_SHAPE, mix, seed=1).batch(0)
    target_frames = batch.target.sum(1)
    assert (target_frames[:20] >= 1).all()
    assert (target_frames[:20] <= int(0.3 * RATE / BASE_SHAPE.frame_samples) + 1).all()
    assert not (batch.target & batch.background).any()
    assert not batch.target[20:].any()  # parts of the keyword, noise and speech
    assert batch.background[20:].all()


def test_the_network_has_one_score_for_each_frame_of_the_masks(training_set: TrainingSet):
    batch = KeywordExampleMaker(training_set, BASE_SHAPE, FINE_TUNE_RECIPE.mix, seed=1).batch(0)
    network = Network(BASE_SHAPE).eval()
    assert network.logits(network.log_mel(batch.pcm)).shape[1] == batch.target.shape[1]
