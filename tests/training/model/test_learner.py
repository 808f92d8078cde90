from __future__ import annotations

import pytest
import torch
from earmark_training.model.learner import Learner
from support.tiny_training import RECIPE


@pytest.mark.slow
def test_a_network_with_more_blocks_starts_with_the_output_that_it_had():
    learner = Learner(RECIPE, RECIPE.shape_in(0))
    grown = learner.grown(RECIPE, RECIPE.shape)
    assert len(grown.network.blocks) == len(learner.network.blocks) + 1
    extra = RECIPE.shape.mel_frames - RECIPE.shape_in(0).mel_frames
    mel = torch.randn(2, RECIPE.shape.mel_frames + 40, RECIPE.shape.mels)
    with torch.no_grad():
        before = learner.network.eval().logits(mel[:, extra:])
        torch.testing.assert_close(grown.network.eval().logits(mel), before)
