"""Train the verifier of a keyword model, on windows at the peaks of the first network's scores.

The first network is trained already. Its scores of examples like its own, and of the training speech in all
conditions, say where the windows lie: at the keyword, or where another sound is most like it. A window ends
where the peak hold ends, as it does in the service.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from earmark_audio.peak_picker import pick_peaks
from earmark_spotter import score_recording
from earmark_spotter.metadata import VerifierInfo
from earmark_spotter.speech_encoder import bundled_speech_encoder

from earmark_training.data.corpus import SAMPLE_RATE_HZ, hours
from earmark_training.evaluation.peaks import LOWEST_PEAK
from earmark_training.keyword.examples import KeywordExampleMaker
from earmark_training.keyword.fine_tune import FIRST_KEYWORD, STEPS_PER_HOUR, sample_speech
from earmark_training.keyword.held_out_conditions import CONDITIONS, Surroundings
from earmark_training.model.encoded_verifier import EncodedVerifier, encode
from earmark_training.model.encoded_verifier_training import train_on_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

    from earmark_training.keyword.examples import KeywordMix
    from earmark_training.keyword.fine_tune import FineTuneRecipe
    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Shape
    from earmark_training.model.onnx_file import ServedNetwork
    from earmark_training.model.speech_embedding import EmbeddingShape

_PROPOSAL_THRESHOLD = 0.15
"""0.1 has nearly the same misses, and twice as many proposals."""

_CHANNELS = 64
_HARD_SCORE, _HARD_WEIGHT, _NEGATIVE_WEIGHT = 0.1, 2.0, 1.2
_PEAKS_PER_RECORDING, _PEAK_DISTANCE_S = 3, 0.5
VERIFIER_BATCH_WORK = 2.0
"""The time of a batch of examples, in steps of the first network's training, to estimate the time left."""


def with_verifier(metadata: ModelMetadata) -> ModelMetadata:
    """Return the metadata of a model with a verifier that scores every proposal."""
    encoder = bundled_speech_encoder()
    info = VerifierInfo(
        encoder.window_samples, _PROPOSAL_THRESHOLD, certain_score=1.0, encoder_sha256=encoder.sha256
    )
    return replace(metadata, verifier=info)


def verifier_work(training_set: TrainingSet, recipe: FineTuneRecipe) -> float:
    """Return the work of `train_verifier`, in steps of the first network's training."""
    mined = min(recipe.mined_hours, hours(training_set.speech)) * STEPS_PER_HOUR
    return mined + recipe.verifier_batches * VERIFIER_BATCH_WORK


def train_verifier(
    network: ServedNetwork,
    model: SpotterModel,
    training_set: TrainingSet,
    recipe: FineTuneRecipe,
    *,
    count: Callable[[float], object] = lambda _: None,
) -> EncodedVerifier:
    """Return a verifier for `model`, which `network` was exported to.

    `count` is called with the work that was done, of which `verifier_work` is the total.
    """
    windows = Windows(model)
    windows.collect(training_set, network.shape, replace(recipe, mix=_mix(recipe.mix)), count=count)
    return windows.train(len(training_set.keywords) + len(training_set.helper_words), recipe)


def _mix(mix: KeywordMix) -> KeywordMix:
    """Return the composition of the examples: more words that are hard to tell apart, less of the rest."""
    return replace(mix, keyword=0.5, confusable=0.2, mistake=0.1)


class Windows:
    """The features of windows, each with its class (0 for none) and the first network's score."""

    def __init__(self, model: SpotterModel, *, first_keyword: int = FIRST_KEYWORD) -> None:
        """Use the scores of `model`, whose classes from `first_keyword` on are the keywords."""
        self._model, meta, self._first_keyword = model, model.metadata, first_keyword
        self._frame = meta.frame_samples
        self._hold = meta.samples_from_ms(meta.detector.hold_ms)
        self._distance = int(_PEAK_DISTANCE_S * SAMPLE_RATE_HZ) // self._frame
        self.features: list[NDArray[np.float16]] = []
        self.classes: list[int] = []
        self.scores: list[float] = []

    def collect(
        self,
        training_set: TrainingSet,
        shape: Shape | EmbeddingShape,
        recipe: FineTuneRecipe,
        *,
        count: Callable[[float], object] = lambda _: None,
    ) -> None:
        """Add windows of the training speech in all conditions, and of examples.

        shape: that of the first network. recipe: how much of both there is, and the mix of the examples.
        """
        surroundings = Surroundings(training_set.corpus, training_set.speech)
        speech = sample_speech(training_set.speech, recipe.mined_hours, seed=recipe.seed)
        for number, recording in enumerate(speech):
            condition = CONDITIONS[number % len(CONDITIONS)]
            self.add_speech(surroundings.place(condition, recording, recipe.seed))
            count(hours([recording]) * STEPS_PER_HOUR)
        maker = KeywordExampleMaker(training_set, shape, recipe.mix, seed=recipe.seed + 1)
        for number in range(recipe.verifier_batches):
            batch = maker.batch(number)
            self.add_examples(batch.pcm.numpy(), batch.keyword.numpy(), batch.target.numpy())
            count(VERIFIER_BATCH_WORK)

    def weights(self) -> NDArray[np.float64]:
        """Return the weight of each window in the training."""
        classes = np.array(self.classes)
        weights: NDArray[np.float64] = np.where(
            classes > 0, 1 / max(1, (classes > 0).sum()), _NEGATIVE_WEIGHT / (classes == 0).sum()
        )
        weights[(classes == 0) & (np.array(self.scores) > _HARD_SCORE)] *= _HARD_WEIGHT
        return weights

    def train(self, keywords: int, recipe: FineTuneRecipe) -> EncodedVerifier:
        """Return a verifier of `keywords` keywords that was trained on the windows."""
        torch.manual_seed(recipe.seed)
        verifier = EncodedVerifier(keywords, _CHANNELS)
        return train_on_features(
            verifier,
            np.stack(self.features),
            np.array(self.classes),
            self.weights(),
            recipe.verifier_steps,
            seed=recipe.seed,
        )

    def add_speech(self, samples: NDArray[np.float32]) -> None:
        """Add the highest peaks in speech without a keyword."""
        scores = score_recording(self._model, samples)[:, self._first_keyword :].max(1)
        count = _PEAKS_PER_RECORDING
        for frame in pick_peaks(
            scores, lowest=LOWEST_PEAK, before=self._distance, after=self._distance, count=count
        ).tolist():
            self.add(samples, frame, 0, float(scores[frame]))

    def add_examples(
        self, pcm: NDArray[np.float32], keyword: NDArray[np.int64], target: NDArray[np.bool_]
    ) -> None:
        """Add the window of the highest score in each example of a batch: see `KeywordBatch`."""
        whole = np.pad(pcm, ((0, 0), (0, -pcm.shape[1] % self._frame)))
        scores, _ = self._model.step(whole, self._model.initial_states(len(pcm)))
        first_end = pcm.shape[1] - (target.shape[1] - 1) * self._frame
        for i, samples in enumerate(pcm):
            frames = (first_end + np.arange(target.shape[1]) * self._frame) // self._frame - 1
            found = scores[i, frames, self._first_keyword :].max(1)
            label = 0
            if target[i].any():
                frames, label = frames[target[i]], 1 + int(keyword[i])
                own = self._first_keyword + int(keyword[i])
                # A helper has no score: its window lies where it is most like a keyword.
                columns = slice(own, own + 1) if own < scores.shape[2] else slice(self._first_keyword, None)
                found = scores[i, frames, columns].max(1)
            best = int(found.argmax())
            self.add(samples, int(frames[best]), label, float(found[best]))

    def add(self, samples: NDArray[np.float32], frame: int, label: int, score: float) -> None:
        """Add the window of a peak: its frame in the audio, its class, and the first network's score."""
        self.features.append(encode(self.window(samples, frame)))
        self.classes.append(label)
        self.scores.append(score)

    def window(self, samples: NDArray[np.float32], frame: int) -> NDArray[np.float32]:
        """Return the audio up to the end of the peak hold of a frame."""
        end = (frame + 1) * self._frame + self._hold
        return np.pad(samples[:end], (0, max(0, end - len(samples))))
