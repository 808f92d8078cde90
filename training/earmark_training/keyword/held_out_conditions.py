"""The conditions in which thresholds are chosen and hard negatives are mined: clean, in noise, in rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from earmark_training.data.augment import add_at, synthetic_sound
from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.surroundings import in_training_room, loudspeaker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.keyword.training_set import TrainingSet

    Samples = NDArray[np.float32]

CLEAN = "clean"
CONDITIONS = (CLEAN, "noise", "babble", "room", "television")
_SNR_DB = 10.0
_TALKERS = 5
_MUSIC_DB = (5.0, 20.0)


class Surroundings:
    """Puts speech into a condition: synthetic sounds, simulated rooms, and other people who talk."""

    def __init__(self, corpus: Corpus, talkers: Sequence[Recording]) -> None:
        self._corpus, self._talkers = corpus, talkers

    def place(self, condition: str, recording: Recording, seed: int) -> Samples:
        """Return a recording in a condition; the same seed gives the same samples."""
        samples = self._corpus.samples(recording)
        rng = np.random.default_rng((seed, recording.start % 2**32))
        if condition == "noise":
            return _add(samples, synthetic_sound(rng, len(samples)), _SNR_DB)
        if condition == "babble":
            return _add(samples, self._babble(rng, len(samples)), _SNR_DB)
        if condition == "television":
            music = synthetic_sound(rng, len(samples))
            samples = loudspeaker(rng, _add(samples, music, rng.uniform(*_MUSIC_DB)))
        if condition in ("room", "television"):
            return in_training_room(rng, samples)
        return samples

    def _babble(self, rng: np.random.Generator, length: int) -> Samples:
        total = np.zeros(length, np.float32)
        for _ in range(_TALKERS):
            position = -int(rng.integers(SAMPLE_RATE_HZ * 3))
            while position < length:
                voice = self._corpus.samples(self._talkers[int(rng.integers(len(self._talkers)))])
                add_at(total, voice / (np.sqrt(np.square(voice).mean()) + np.float32(1e-6)), position)
                position += len(voice)
        return total


def held_out_surroundings(training_set: TrainingSet) -> Surroundings:
    """Return the surroundings in which held-out speech is scored: other held-out readers talk beside it.

    The network knows the voices of the training speech, so babble of these has too few false alarms.
    """
    return Surroundings(training_set.corpus, training_set.held_out)


def _add(samples: Samples, sound: Samples, snr_db: float) -> Samples:
    """Add a sound that is `snr_db` weaker than the samples."""
    power = float(np.square(samples).mean()) / 10 ** (snr_db / 10)
    level = np.sqrt(power / (float(np.square(sound).mean()) + 1e-9))
    mixed: Samples = np.clip(samples + sound * np.float32(level), -1, 1)
    return mixed
