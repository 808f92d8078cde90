"""Fine-tuning examples: the keyword or other sounds, in surroundings that are drawn for every batch.

An example is longer than the receptive field, so one pass computes many scores, and the keyword may end at
any of them. Two masks select the scores for the loss: the keyword should be detected within 300 ms after its
end, and must not be detected in the background; other scores are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from earmark_training.data.augment import add_at, change_speed, synthetic_sound
from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.surroundings import place_voice
from earmark_training.data.tones import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.training_set import TrainingSet
    from earmark_training.model.network import Shape
    from earmark_training.model.speech_embedding import EmbeddingShape

_T = TypeVar("_T")

_SCORED_S = 1.6  # the part of an example that has scores
_TARGET_S = 0.3  # after the end of the word
_RELEASE_S = 0.5  # after the end of the word, when its score must have fallen
_RECOGNIZABLE_FRACTION = 0.5  # of a word, before which it cannot be recognized
_PART_FRACTION = (0.3, 0.65)  # of a word, which must not be detected
_MARGIN_S = 0.6  # of a recording, around its word
_NOISES, _NOISE_S = 40, 6


@dataclass(frozen=True, slots=True)
class KeywordMix:
    """The composition and augmentation of a batch: shares of examples, probabilities, and ranges."""

    size: int = 48
    keyword: float = 0.4
    part: float = 0.1
    """A part of the keyword, which must not be detected."""
    confusable: float = 0.1
    hard_negative: float = 0.15
    """Speech that the network mistook for the keyword in an earlier round."""
    mistake: float = 0.08
    """False alarms that a person has reviewed."""
    noise: float = 0.05
    few_recordings: int = 15
    """The number of recordings of a keyword at which half of its examples are recorded, half synthesized."""
    speech_before: float = 0.5
    """Other speech precedes the word directly."""
    speech_after: float = 0.4
    noise_of_mistakes: float = 0.2
    """Noise is the audio of a reviewed false alarm: the keyword is spoken in such places too."""
    synthesized_speed: tuple[float, float] = (0.72, 1.15)
    """Synthesized keywords are played this much faster: more voices, and slower than synthesizers speak."""
    add_noise: float = 0.65
    snr_db: tuple[float, float] = (0.0, 30.0)
    gain_db: tuple[float, float] = (-25.0, 10.0)


@dataclass(frozen=True, slots=True)
class KeywordBatch:
    """A batch of B examples with F scored frames."""

    pcm: Tensor  # (B, samples)
    keyword: Tensor  # (B,) int64: the index of the keyword among the keywords; 0 where there is none
    target: Tensor  # (B, F) bool: the keyword should be detected
    background: Tensor  # (B, F) bool: no keyword must be detected


HardNegative = tuple["Recording", int]
"""A recording, and the sample at which the score of the keyword was high."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A sound that contains a word: its samples, and the word's start and end in them."""

    samples: NDArray[np.float32]
    start: int
    end: int

    @property
    def power(self) -> float:
        """The mean power of the word."""
        return float(np.square(self.samples[self.start : self.end]).mean())


class KeywordExampleMaker:
    """Makes batches. The same seed, step and hard negatives make the same batch."""

    def __init__(
        self, training_set: TrainingSet, shape: Shape | EmbeddingShape, mix: KeywordMix, *, seed: int
    ) -> None:
        self._set, self._mix, self._seed = training_set, mix, seed
        self._keywords = (*training_set.keywords, *training_set.helper_words)
        self._recorded, self._synthesized = (
            {k: [r for r in part if r.text == k] for k in self._keywords}
            for part in (training_set.recordings, (*training_set.synthesized, *training_set.helpers))
        )
        self._frame = shape.frame_samples
        self._first = shape.unsmoothed_receptive_field_samples
        self._frames = int(_SCORED_S * SAMPLE_RATE_HZ) // self._frame
        self._samples = self._first + (self._frames - 1) * self._frame
        self._frame_ends = self._first + np.arange(self._frames) * self._frame
        # Synthesizing noise would be slower than all the rest, so batches share a stock of it.
        rng = np.random.default_rng((seed, 1))
        self._noises = [synthetic_sound(rng, _NOISE_S * SAMPLE_RATE_HZ) for _ in range(_NOISES)]

    def batch(self, step: int, hard_negatives: Sequence[HardNegative] = ()) -> KeywordBatch:
        """Return batch number `step`, with some of the hard negatives."""
        rng = np.random.default_rng((self._seed, 2, step))
        pcm = np.zeros((self._mix.size, self._samples), np.float32)
        target, background = np.zeros((2, self._mix.size, self._frames), bool)
        keyword = np.zeros(self._mix.size, np.int64)
        for i, kind in enumerate(self._kinds(hard_negatives)):
            background[i] = True
            power = 0.0
            if kind in ("keyword", "part", "confusable"):
                keyword[i] = rng.integers(len(self._keywords))
                word = self._draw_word(rng, kind, self._keywords[keyword[i]])
                power = word.power
                end = self._add_word(rng, word, pcm[i])
                if kind == "keyword":
                    target[i], background[i] = masks(self._frame_ends, end, word.end - word.start)
            elif kind == "hard_negative":
                recording, end = _pick(rng, hard_negatives)
                power = self._add_ending_at(rng, self._set.corpus.samples(recording), end, pcm[i])
            elif kind == "mistake":
                power = self._add_mistake(rng, pcm[i])
            elif kind == "speech":
                power = self._add_speech(rng, pcm[i])
            else:
                pcm[i] = self._draw_noise(rng, speech=False) * np.float32(0.1 * rng.uniform(0, 1) ** 2)
            if power > 0 and rng.random() < self._mix.add_noise:
                level = np.sqrt(power / 10 ** (rng.uniform(*self._mix.snr_db) / 10))
                pcm[i] += self._draw_noise(rng) * np.float32(level)
            pcm[i] *= np.float32(10 ** (rng.uniform(*self._mix.gain_db) / 20))
        np.clip(pcm, -1, 1, out=pcm)
        return KeywordBatch(*map(torch.from_numpy, (pcm, keyword, target, background)))

    def _kinds(self, hard_negatives: Sequence[HardNegative]) -> list[str]:
        """Return the kind of each example of a batch; speech replaces kinds that are not available."""
        mix = self._mix
        shares = [
            ("keyword", mix.keyword, True),
            ("part", mix.part, True),
            ("confusable", mix.confusable, bool(self._set.confusables)),
            ("hard_negative", mix.hard_negative, bool(hard_negatives)),
            ("mistake", mix.mistake, bool(self._set.mistakes)),
            ("noise", mix.noise, True),
        ]
        kinds = [k for k, share, available in shares if available for _ in range(round(mix.size * share))]
        return kinds + ["speech"] * (mix.size - len(kinds))

    def _draw_word(self, rng: np.random.Generator, kind: str, keyword: str) -> _Word:
        """Return the keyword, a part of it, or a confusable, in a varied voice."""
        recorded, synthesized = self._recorded[keyword], self._synthesized[keyword]
        choices: Sequence[Recording] = recorded
        if kind == "confusable":
            choices = self._set.confusables
        elif synthesized:
            few = self._mix.few_recordings
            if not recorded or rng.random() < few / (few + len(recorded)):
                choices = synthesized
        recording = _pick(rng, choices)
        start, end = recording.word or (0, recording.length)
        first = max(0, start - int(_MARGIN_S * SAMPLE_RATE_HZ))
        samples = self._set.corpus.samples(recording)[first : end + int(_MARGIN_S * SAMPLE_RATE_HZ)]
        samples, speed = place_voice(rng, samples)
        if choices is synthesized:
            faster = float(rng.uniform(*self._mix.synthesized_speed))
            samples, speed = change_speed(samples, faster), speed * faster
        start, end = int((start - first) / speed), int((end - first) / speed)
        word = _Word(samples, start, end)
        return _part(rng, word) if kind == "part" else word

    def _add_word(self, rng: np.random.Generator, word: _Word, pcm: NDArray[np.float32]) -> int:
        """Add a word to `pcm`, perhaps with other speech around it; return the sample at which it ends."""
        end = int(rng.integers(self._first + self._frame, len(pcm) - 2 * self._frame))
        samples, offset = word.samples, end - word.end
        if rng.random() < self._mix.speech_before:
            margin = max(0, word.start - int(rng.uniform(0.02, 0.2) * SAMPLE_RATE_HZ))
            samples, offset = samples[margin:], offset + margin
            space = pcm[: max(0, offset - int(rng.uniform(0, 0.4) * SAMPLE_RATE_HZ))]
            speech = self._draw_speech(rng, len(space))
            add_at(space, speech, len(space) - len(speech))
        add_at(pcm, samples, offset)
        if rng.random() < self._mix.speech_after:
            space = pcm[end + int(rng.uniform(0.05, 0.5) * SAMPLE_RATE_HZ) :]
            add_at(space, self._draw_speech(rng, len(space)), 0)
        return end

    def _add_ending_at(
        self,
        rng: np.random.Generator,
        samples: NDArray[np.float32],
        end: int,
        pcm: NDArray[np.float32],
    ) -> float:
        """Add samples to `pcm` so that sample `end` of them is at a scored frame; return the mean power."""
        add_at(pcm, samples, int(rng.integers(self._first, len(pcm))) - end)
        return float(np.square(pcm).mean())

    def _add_mistake(self, rng: np.random.Generator, pcm: NDArray[np.float32]) -> float:
        """Add a reviewed false alarm to `pcm`, half of the time in a varied voice; return the mean power."""
        mistake = _pick(rng, self._set.mistakes)
        samples, speed = self._set.corpus.samples(mistake), 1.0
        if rng.random() < 0.5:
            samples, speed = place_voice(rng, samples)
        end = mistake.word[1] if mistake.word else mistake.length
        return self._add_ending_at(rng, samples, int(min(end, mistake.length) / speed), pcm)

    def _add_speech(self, rng: np.random.Generator, pcm: NDArray[np.float32]) -> float:
        """Add speech in a varied voice to `pcm`; return the mean power."""
        speech, _ = place_voice(rng, self._draw_speech(rng, int(1.2 * len(pcm))))
        add_at(pcm, speech, 0)
        return float(np.square(pcm).mean())

    def _draw_speech(self, rng: np.random.Generator, length: int) -> NDArray[np.float32]:
        """Return a random piece of speech, at most `length` samples, at a random level."""
        speech = _pick(rng, self._set.speech)
        start = int(rng.integers(max(1, speech.length - length)))
        piece = replace(speech, start=speech.start + start, length=min(length, speech.length))
        level = np.float32(10 ** (rng.uniform(-10, 3) / 20))
        return np.multiply(self._set.corpus.samples(piece), level)

    def _draw_noise(self, rng: np.random.Generator, *, speech: bool = True) -> NDArray[np.float32]:
        """Return noise of unit power, as long as an example: a sound without speech, or babble."""
        kind = rng.random()
        noise = np.zeros(self._samples, np.float32)
        if self._set.mistakes and speech and rng.random() < self._mix.noise_of_mistakes:
            sound = self._set.corpus.samples(_pick(rng, self._set.mistakes))
            noise += np.roll(np.resize(sound, self._samples), int(rng.integers(self._samples)))
        elif kind < 0.1:
            add_at(
                noise,
                _pick(rng, list(SIGNALS.values()))(rng).astype(np.float32),
                int(rng.integers(self._samples)),
            )
        elif kind < 0.6 or not speech:
            sound = _pick(rng, self._noises)
            start = int(rng.integers(len(sound) - self._samples))
            noise += sound[start : start + self._samples]
        else:
            for _ in range(rng.integers(1, 7)):
                voice = self._draw_speech(rng, self._samples)
                add_at(noise, voice / (np.sqrt(np.square(voice).mean()) + np.float32(1e-6)), 0)
        scaled: NDArray[np.float32] = noise / (np.sqrt(np.square(noise).mean()) + np.float32(1e-4))
        return scaled


def masks(
    frame_ends: NDArray[np.int64], end: int, length: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return target and background mask, [frames] each, of a word of `length` samples that ends at `end`.

    frame_ends [frames]: the last sample that each score depends on.
    """
    target = (frame_ends >= end) & (frame_ends < end + _TARGET_S * SAMPLE_RATE_HZ)
    before = frame_ends < end - (1 - _RECOGNIZABLE_FRACTION) * length
    return target, before | (frame_ends > end + _RELEASE_S * SAMPLE_RATE_HZ)


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _part(rng: np.random.Generator, word: _Word) -> _Word:
    """Return the beginning or the end of a word alone."""
    length = int((word.end - word.start) * rng.uniform(*_PART_FRACTION))
    if rng.random() < 0.5:
        piece, start, end = word.samples[: word.start + length].copy(), word.start, word.start + length
    else:
        piece, start, end = word.samples[word.end - length :].copy(), 0, length
    fade = np.linspace(0, 1, min(len(piece), SAMPLE_RATE_HZ // 100), dtype=np.float32)
    piece[: len(fade)] *= fade
    piece[len(piece) - len(fade) :] *= fade[::-1]
    return _Word(piece, start, end)
