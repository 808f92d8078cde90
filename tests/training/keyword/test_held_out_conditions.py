"""The conditions of held-out speech have nothing of the speech that a network learns from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_training.keyword.held_out_conditions import CONDITIONS, held_out_surroundings

if TYPE_CHECKING:
    from earmark_training.keyword.training_set import TrainingSet

pytestmark = pytest.mark.usefixtures("few_sounds")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_training_voice_talks_beside_held_out_speech(training_set: TrainingSet, condition: str) -> None:
    speech = training_set.speech
    placed = [
        held_out_surroundings(replace(training_set, speech=training, held_out=speech[10:])).place(
            condition, speech[10], 3
        )
        for training in (speech[:10], speech[:3])
    ]
    np.testing.assert_array_equal(*placed)
