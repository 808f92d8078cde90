"""Training examples: pieces of synthetic streams, mixed from cached features for every batch.

A stream is a sequence of words, read speech and pauses, with noise; or only read speech; or only noise. An
example consists of its log-mel features and of two kinds of labels for the network's output frames:

* `targets`: within 300 ms after the end of a word, in any of those frames, its class;
* `allowed`: in every frame, the classes that are not an error there: silence, unknown, and a keyword that is
  being said or was said within the last half second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from earmark_training.data.augment import add_at
from earmark_training.data.front_end import LOG_FLOOR, LogMel
from earmark_training.data.transcripts import tolerance_samples
from earmark_training.data.vocabulary import SILENCE, UNKNOWN, accepted_words
from earmark_training.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earmark_training.data.features import FeatureCache, Item
    from earmark_training.data.front_end import FrontEnd, ScoreWindow

    Power = NDArray[np.float32]

OUTPUT_FRAMES = 125
"""Output frames of an example: five seconds."""

_TARGET_SECONDS = 0.3
_RELEASE_SECONDS = 0.5  # after the end of a word, when its score must have fallen
_RECOGNIZABLE_FRACTION = 0.4  # of a word, before which it cannot be recognized
_NOISE_LEVEL = (-2, 4)  # log10 of the summed mel power: from 60 dB below full-scale white noise up to it
_WARPS = np.linspace(-0.12, 0.12, 25)


@dataclass(frozen=True, slots=True)
class Mix:
    """The composition and augmentation of a batch. Floats are probabilities, pairs are ranges."""

    streams: int = 16
    """Examples in a batch of one process."""
    speech: float = 0.28
    """An example is read speech only."""
    noise: float = 0.1
    """An example is noise only."""
    keyword: float = 0.65
    """In the other examples, the next sound is a keyword; else an unknown word, or a piece of read speech."""
    unknown_word: float = 0.14
    joined: float = 0.04
    """A word follows the last sound without a pause: rare, since it is then likely part of a sentence."""
    pause_s: tuple[float, float] = (0.1, 1.2)
    warp: float = 0.5
    """The vocal tract of a voice is made longer or shorter."""
    tempo: tuple[float, float] = (0.85, 1.15)
    add_noise: float = 0.75
    """Noise is added to words."""
    add_noise_to_speech: float = 0.1
    """Noise is added to read speech: rare, or the network would need higher scores in noise than in quiet."""
    snr_db: tuple[float, float] = (-5.0, 30.0)
    gain_db: tuple[float, float] = (-25.0, 10.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of B examples, with F = OUTPUT_FRAMES, C classes and N words to detect."""

    mel: Tensor  # (B, mel frames, mels): log-mel, not normalised
    allowed: Tensor  # (B, F, C) bool
    targets: Tensor  # (N, 3): example, first target frame, class


@dataclass(frozen=True, slots=True)
class _Example:
    """One example of a batch, which is filled in place."""

    power: Power  # (mel frames, mels)
    allowed: NDArray[np.bool_]  # (mel frames, C)


class ExampleMaker:
    """Makes batches from cached features; the same seed makes the same batch.

    Raises RecipeError if there are no training clips of a keyword.
    """

    def __init__(
        self, cache: FeatureCache, front_end: FrontEnd, window: ScoreWindow, labels: tuple[str, ...], mix: Mix
    ) -> None:
        self._cache, self._front_end, self._window, self._mix = cache, front_end, window, mix
        self._labels = {label: i for i, label in enumerate(labels)}
        keywords = labels[2:]
        clips = [i for i in cache.items if i.kind == "clip"]
        self._by_keyword = [[c for c in clips if c.text == k] for k in keywords]
        missing = [k for k, items in zip(keywords, self._by_keyword, strict=True) if not items]
        if missing:
            raise RecipeError(f"no training clips of: {', '.join(missing)}")
        self._unknown = [c for c in clips if c.text not in self._labels]
        self._speech = [i for i in cache.items if i.kind == "speech"]
        self._noise = [i for i in cache.items if i.kind == "noise"]
        self._synthetic = [i for i in cache.items if i.kind == "synthetic"]
        self._class_of_word = {word: self._labels[k] for k in keywords for word in accepted_words(k)}
        self._seconds = front_end.hop_samples / front_end.sample_rate_hz
        self._frames = window.mel_frames + (OUTPUT_FRAMES - 1) * window.stride
        self.target_frames = round(_TARGET_SECONDS / self._seconds / window.stride)
        self._warps = [_warp_matrix(front_end.mels, w) for w in _WARPS]
        # The phases of two sounds matter most in mel bands that few bins of the Fourier transform make up.
        mel = LogMel(front_end).mel.numpy()
        self._interference = (
            1 / np.sqrt(np.maximum(1, mel.sum(0) ** 2 / np.square(mel).sum(0) / 1.5))
        ).astype(np.float32)

    def batch(self, seed: tuple[int, ...]) -> Batch:
        """Return the batch of a seed."""
        rng = np.random.default_rng(seed)
        mix, b, t = self._mix, self._mix.streams, self._frames
        power = np.zeros((b, t, self._front_end.mels), np.float32)
        allowed = np.zeros((b, t, len(self._labels)), bool)
        allowed[..., : self._labels[UNKNOWN] + 1] = True
        word_ends: list[tuple[int, int, int]] = []
        for i in range(b):
            kind, example = rng.random(), _Example(power[i], allowed[i])
            if kind < mix.noise:
                power[i] = self._make_noise(rng) * np.float32(10 ** rng.uniform(*_NOISE_LEVEL))
                allowed[i] = np.arange(len(self._labels)) == self._labels[SILENCE]
            else:
                if kind < mix.noise + mix.speech and self._speech:
                    noisy = rng.random() < mix.add_noise_to_speech
                    level = self._fill_with_speech(rng, example)
                else:
                    noisy = rng.random() < mix.add_noise
                    speech = not noisy or rng.random() < mix.add_noise_to_speech
                    level, ends = self._fill_with_words(rng, example, speech=speech)
                    word_ends += [(i, *end) for end in ends]
                if noisy:
                    self._add_noise(rng, power[i], level)
            power[i] *= 10 ** (rng.uniform(*mix.gain_db) / 10)
        # The last mel frame that each score depends on.
        last = slice(self._window.mel_frames - 1, None, self._window.stride)
        targets = np.array(word_ends, np.int64).reshape(-1, 3)
        # From mel frames to output frames: the first one that depends on the whole word.
        targets[:, 1] = -((self._window.mel_frames - targets[:, 1]) // self._window.stride)
        targets = targets[(targets[:, 1] >= 0) & (targets[:, 1] + self.target_frames <= OUTPUT_FRAMES)]
        mel = np.log(power + np.float32(LOG_FLOOR))
        return Batch(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (mel, allowed[:, last], targets)))

    @staticmethod
    def _pick(rng: np.random.Generator, items: list[Item]) -> Item:
        return items[rng.integers(len(items))]

    def _fill_with_words(
        self, rng: np.random.Generator, example: _Example, *, speech: bool
    ) -> tuple[float, list[tuple[int, int]]]:
        """Fill an example with words and pauses, and with read speech if `speech` is set.

        Return the median level of the words, and (end in mel frames, class) of each.
        """
        mix, position = self._mix, -int(rng.integers(100))
        levels: list[float] = []
        ends: list[tuple[int, int]] = []
        while position < len(example.power):
            if rng.random() >= mix.joined:
                position += int(rng.uniform(*mix.pause_s) / self._seconds)
            kind = rng.uniform(0, 1 if speech and self._speech else mix.keyword + mix.unknown_word)
            if kind < mix.keyword:
                item = self._pick(rng, self._by_keyword[rng.integers(len(self._by_keyword))])
            elif kind < mix.keyword + mix.unknown_word:
                item = self._pick(rng, self._unknown or self._by_keyword[0])
            else:
                item = self._pick(rng, self._speech)
                cut, length = self._cut(rng, item, int(rng.uniform(0.3, 2.0) / self._seconds))
                levels.append(self._add_speech(rng, example, position, item, (cut, length)))
                position += length
                continue
            sound, tempo = self._vary_voice(rng, self._cache.power(item))
            (_, start, end), target = item.words[0], self._labels.get(item.text, self._labels[UNKNOWN])
            start, end = position + int(start / tempo), position + math.ceil(end / tempo)
            sound *= np.float32(10 ** (rng.uniform(-6, 3) / 10))
            add_at(example.power, sound, position)
            first = start + int(_RECOGNIZABLE_FRACTION * (end - start))
            last = end + round(_RELEASE_SECONDS / self._seconds)
            example.allowed[max(0, first) : max(0, last), target] = True
            levels.append(float(sound[max(0, start - position) : end - position].sum(1).mean()))
            ends.append((end, target))
            position += len(sound)
        return float(np.median(levels)) if levels else 1e-3, ends

    def _fill_with_speech(self, rng: np.random.Generator, example: _Example) -> float:
        """Fill an example with read speech, utterance after utterance; return its mean level."""
        position, levels = 0, []
        while position < len(example.power):
            item = self._pick(rng, self._speech)
            cut, length = self._cut(rng, item, len(example.power) - position)
            levels.append(self._add_speech(rng, example, position, item, (cut, length)))
            position += length + int(rng.uniform(0, 0.5) / self._seconds)
        return float(np.mean(levels))

    def _cut(self, rng: np.random.Generator, item: Item, length: int) -> tuple[int, int]:
        """Return a random piece of an item, at most `length` frames, as (first frame, frames)."""
        return int(rng.integers(max(1, item.frames - length))), min(length, item.frames)

    def _add_speech(
        self, rng: np.random.Generator, example: _Example, position: int, item: Item, piece: tuple[int, int]
    ) -> float:
        """Add a piece (first frame, frames) of an utterance at `position`; return its mean level.

        Keywords in its transcript are allowed within the tolerance of their estimated places.
        """
        cut, length = piece
        sound, _ = self._vary_voice(rng, self._cache.power(item, cut, length), tempo=False)
        add_at(example.power, sound, position)
        reach = tolerance_samples(item.frames * self._front_end.hop_samples) // self._front_end.hop_samples
        for word, start, end in item.words:
            if word in self._class_of_word:
                first, last = start - reach, end + reach + round(_RELEASE_SECONDS / self._seconds)
                first, last = (position + max(0, x - cut) for x in (first, last))
                example.allowed[max(0, first) : max(0, last), self._class_of_word[word]] = True
        return float(sound.sum(1).mean())

    def _vary_voice(
        self, rng: np.random.Generator, power: Power, *, tempo: bool = True
    ) -> tuple[Power, float]:
        """Return a sound [frames, mels] with another vocal tract and at another tempo; and the tempo."""
        if rng.random() < self._mix.warp:
            power = power @ self._warps[rng.integers(len(self._warps))]
        if not tempo:
            return power, 1.0
        faster = float(rng.uniform(*self._mix.tempo))
        times = np.arange(int(len(power) / faster), dtype=np.float32) * np.float32(faster)
        left = np.minimum(times.astype(np.int64), len(power) - 1)
        right = np.minimum(left + 1, len(power) - 1)
        weight = (times - left.astype(np.float32))[:, None]
        return power[left] * (1 - weight) + power[right] * weight, faster

    def _make_noise(self, rng: np.random.Generator) -> Power:
        """Return noise of an example's length and mean level 1: recorded, synthetic, or babble."""
        kind = rng.random()
        if kind < 0.85 or not self._speech:
            item = self._pick(rng, self._noise if kind < 0.6 else self._synthetic)
            cut, length = self._cut(rng, item, self._frames)
            noise = np.resize(self._cache.power(item, cut, length), (self._frames, self._front_end.mels))
        else:
            noise = np.zeros((self._frames, self._front_end.mels), np.float32)
            for _ in range(rng.integers(3, 7)):
                item = self._pick(rng, self._speech)
                cut, length = self._cut(rng, item, self._frames)
                add_at(
                    noise, self._cache.power(item, cut, length), int(rng.integers(self._frames - length + 1))
                )
        level = noise.sum(1).mean()
        return noise / max(float(level), 1e-9)

    def _add_noise(self, rng: np.random.Generator, power: Power, level: float) -> None:
        """Add noise at a random SNR to an example whose words have the given level, in place."""
        noise = self._make_noise(rng)
        noise *= np.float32(level / 10 ** (rng.uniform(*self._mix.snr_db) / 10))
        phase = np.cos(rng.uniform(0, np.pi, power.shape).astype(np.float32))
        power += noise + 2 * self._interference * np.sqrt(power * noise) * phase
        np.maximum(power, 0, out=power)


def _warp_matrix(mels: int, amount: float) -> Power:
    """Return the matrix [mels, mels] that maps a mel spectrum to that of another vocal tract length."""
    # A shift in the upper part of the mel scale, which is logarithmic in frequency; less and less below it.
    source = np.arange(mels) - amount * mels / 4 * np.minimum(1, np.arange(mels) / (mels / 4))
    source = np.clip(source, 0, mels - 1)
    left = np.minimum(source.astype(int), mels - 2)
    matrix = np.zeros((mels, mels), np.float32)
    columns = np.arange(mels)
    matrix[left, columns] += 1 - (source - left)
    matrix[left + 1, columns] += source - left
    return matrix
