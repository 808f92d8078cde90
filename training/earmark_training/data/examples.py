"""Training examples: stretches of made-up streams, mixed anew from a feature bank for every batch.

A stream is words, read speech and pauses, one after another, under noise; or only read speech; or only
noise. Its features are what the network hears of it; its marks say what the network should answer:

* within 300 ms after a word's end, at a moment of its choice, its class (`answers`);
* everywhere, no class but those that are allowed there (`allowed`): silence, "some other word", and a
  keyword that is just being said, or was said within half a second.
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
from earmark_training.data.vocabulary import SILENCE, UNKNOWN, heard_as
from earmark_training.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earmark_training.data.features import FeatureBank, Item
    from earmark_training.data.front_end import FrontEnd, ScoreWindow

    Power = NDArray[np.float32]

OUTPUT_FRAMES = 125  # five seconds of them
_ANSWER_SECONDS = 0.3
_FORGET_SECONDS = 0.5  # after the word's end, by which its score must have fallen
_HEARD_FRACTION = 0.4  # of a word, before which nobody can know it
_NOISE_LEVEL = (-2, 4)  # powers of ten of mel power, summed: from 60 dB below full-scale white noise up to it
_WARPS = np.linspace(-0.12, 0.12, 25)


@dataclass(frozen=True, slots=True)
class Mix:
    """What a batch is made of, and how it is disturbed. Probabilities, where nothing else is said."""

    streams: int = 16
    """Examples in a batch of one process."""
    speech: float = 0.28
    """Examples of nothing but read speech."""
    noise: float = 0.1
    """Examples of nothing but noise."""
    keyword: float = 0.65
    """In the others: the next thing is a keyword; else another word, or a piece of read speech."""
    unknown_word: float = 0.14
    joined: float = 0.04
    """A word follows what was before it without a pause: seldom, for then it is likely part of a sentence."""
    pause_s: tuple[float, float] = (0.1, 1.2)
    warp: float = 0.5
    """A voice's vocal tract is made longer or shorter."""
    tempo: tuple[float, float] = (0.85, 1.15)
    add_noise: float = 0.75
    """Noise is added to words."""
    add_noise_to_speech: float = 0.1
    """Noise is added to read speech: seldom, lest a word in noise had to be surer of itself than in quiet."""
    snr_db: tuple[float, float] = (-5.0, 30.0)
    gain_db: tuple[float, float] = (-25.0, 10.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of examples; F = OUTPUT_FRAMES, C = classes, N = words to be answered."""

    mel: Tensor  # (B, mel frames, mels): log-mel, not normalised
    allowed: Tensor  # (B, F, C) bool
    answers: Tensor  # (N, 3): example, first frame of the answer, class


@dataclass(frozen=True, slots=True)
class _Stretch:
    """One example in the making."""

    power: Power  # (mel frames, mels)
    allowed: NDArray[np.bool_]  # (mel frames, C)


class ExampleMaker:
    """Makes batches from a feature bank."""

    def __init__(
        self, bank: FeatureBank, front_end: FrontEnd, window: ScoreWindow, labels: tuple[str, ...], mix: Mix
    ) -> None:
        self._bank, self._front_end, self._window, self._mix = bank, front_end, window, mix
        self._labels = {label: i for i, label in enumerate(labels)}
        keywords = labels[2:]
        clips = [i for i in bank.items if i.kind == "clip"]
        self._by_keyword = [[c for c in clips if c.text == k] for k in keywords]
        missing = [k for k, found in zip(keywords, self._by_keyword, strict=True) if not found]
        if missing:
            raise RecipeError(f"no training clips of: {', '.join(missing)}")
        self._unknown = [c for c in clips if c.text not in self._labels]
        self._speech = [i for i in bank.items if i.kind == "speech"]
        self._noise = [i for i in bank.items if i.kind == "noise"]
        self._synthetic = [i for i in bank.items if i.kind == "synthetic"]
        self._sounds = {word: self._labels[k] for k in keywords for word in heard_as(k)}
        self._seconds = front_end.hop_samples / front_end.sample_rate_hz
        self._frames = window.mel_frames + (OUTPUT_FRAMES - 1) * window.stride
        self.answer_frames = round(_ANSWER_SECONDS / self._seconds / window.stride)
        self._warps = [_warp(front_end.mels, w) for w in _WARPS]
        # Where few bins of the Fourier transform make a mel band, two sounds' phases matter most.
        mel = LogMel(front_end).mel.numpy()
        self._interference = (
            1 / np.sqrt(np.maximum(1, mel.sum(0) ** 2 / np.square(mel).sum(0) / 1.5))
        ).astype(np.float32)

    def batch(self, seed: tuple[int, ...]) -> Batch:
        """Return the batch of that seed: always the same."""
        rng = np.random.default_rng(seed)
        mix, b, t = self._mix, self._mix.streams, self._frames
        power = np.zeros((b, t, self._front_end.mels), np.float32)
        allowed = np.zeros((b, t, len(self._labels)), bool)
        allowed[..., : self._labels[UNKNOWN] + 1] = True
        answers: list[tuple[int, int, int]] = []
        for i in range(b):
            kind, stretch = rng.random(), _Stretch(power[i], allowed[i])
            if kind < mix.noise:
                power[i] = self._some_noise(rng) * np.float32(10 ** rng.uniform(*_NOISE_LEVEL))
                allowed[i] = np.arange(len(self._labels)) == self._labels[SILENCE]
            else:
                if kind < mix.noise + mix.speech and self._speech:
                    noisy = rng.random() < mix.add_noise_to_speech
                    level = self._fill_with_speech(rng, stretch)
                else:
                    noisy = rng.random() < mix.add_noise
                    speech = not noisy or rng.random() < mix.add_noise_to_speech
                    level, ends = self._fill_with_words(rng, stretch, speech=speech)
                    answers += [(i, *end) for end in ends]
                if noisy:
                    self._add_noise(rng, power[i], level)
            power[i] *= 10 ** (rng.uniform(*mix.gain_db) / 10)
        last = slice(
            self._window.mel_frames - 1, None, self._window.stride
        )  # the last mel frame that a score has seen
        marks = np.array(answers, np.int64).reshape(-1, 3)
        # In output frames: the first that has seen the whole word.
        marks[:, 1] = -((self._window.mel_frames - marks[:, 1]) // self._window.stride)
        marks = marks[(marks[:, 1] >= 0) & (marks[:, 1] + self.answer_frames <= OUTPUT_FRAMES)]
        mel = np.log(power + np.float32(LOG_FLOOR))
        return Batch(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (mel, allowed[:, last], marks)))

    @staticmethod
    def _pick(rng: np.random.Generator, items: list[Item]) -> Item:
        return items[rng.integers(len(items))]

    def _fill_with_words(
        self, rng: np.random.Generator, stretch: _Stretch, *, speech: bool
    ) -> tuple[float, list[tuple[int, int]]]:
        """Lay words, pauses, perhaps speech down; return the words' mean level, and (end, class) of each."""
        mix, position = self._mix, -int(rng.integers(100))
        levels: list[float] = []
        ends: list[tuple[int, int]] = []
        while position < len(stretch.power):
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
                levels.append(self._lay_speech(rng, stretch, position, item, (cut, length)))
                position += length
                continue
            sound, tempo = self._voice(rng, self._bank.power(item))
            (_, start, end), target = item.words[0], self._labels.get(item.text, self._labels[UNKNOWN])
            start, end = position + int(start / tempo), position + math.ceil(end / tempo)
            sound *= np.float32(10 ** (rng.uniform(-6, 3) / 10))
            add_at(stretch.power, sound, position)
            heard = start + int(_HEARD_FRACTION * (end - start))
            stretch.allowed[max(0, heard) : max(0, end + round(_FORGET_SECONDS / self._seconds)), target] = (
                True
            )
            levels.append(float(sound[max(0, start - position) : end - position].sum(1).mean()))
            ends.append((end, target))
            position += len(sound)
        return float(np.median(levels)) if levels else 1e-3, ends

    def _fill_with_speech(self, rng: np.random.Generator, stretch: _Stretch) -> float:
        """Lay read speech down, utterance after utterance; return its mean level."""
        position, levels = 0, []
        while position < len(stretch.power):
            item = self._pick(rng, self._speech)
            cut, length = self._cut(rng, item, len(stretch.power) - position)
            levels.append(self._lay_speech(rng, stretch, position, item, (cut, length)))
            position += length + int(rng.uniform(0, 0.5) / self._seconds)
        return float(np.mean(levels))

    def _cut(self, rng: np.random.Generator, item: Item, length: int) -> tuple[int, int]:
        """Return where to cut `length` frames out of an item, or all of a shorter one: (first, length)."""
        return int(rng.integers(max(1, item.frames - length))), min(length, item.frames)

    def _lay_speech(
        self, rng: np.random.Generator, stretch: _Stretch, position: int, item: Item, piece: tuple[int, int]
    ) -> float:
        """Lay a piece (first frame, frames) of an utterance at `position`; return its mean level.

        Its keywords are allowed wherever they may be.
        """
        cut, length = piece
        sound, _ = self._voice(rng, self._bank.power(item, cut, length), tempo=False)
        add_at(stretch.power, sound, position)
        reach = tolerance_samples(item.frames * self._front_end.hop_samples) // self._front_end.hop_samples
        for word, start, end in item.words:
            if word in self._sounds:
                first, last = start - reach, end + reach + round(_FORGET_SECONDS / self._seconds)
                first, last = (position + max(0, x - cut) for x in (first, last))
                stretch.allowed[max(0, first) : max(0, last), self._sounds[word]] = True
        return float(sound.sum(1).mean())

    def _voice(self, rng: np.random.Generator, power: Power, *, tempo: bool = True) -> tuple[Power, float]:
        """Return a sound [frames, mels] from another vocal tract, at another tempo; and the tempo."""
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

    def _some_noise(self, rng: np.random.Generator) -> Power:
        """Return a stream's length of noise, of mean level 1: recorded, synthetic, or people talking."""
        kind = rng.random()
        if kind < 0.85 or not self._speech:
            item = self._pick(rng, self._noise if kind < 0.6 else self._synthetic)
            cut, length = self._cut(rng, item, self._frames)
            noise = np.resize(self._bank.power(item, cut, length), (self._frames, self._front_end.mels))
        else:
            noise = np.zeros((self._frames, self._front_end.mels), np.float32)
            for _ in range(rng.integers(3, 7)):
                item = self._pick(rng, self._speech)
                cut, length = self._cut(rng, item, self._frames)
                add_at(
                    noise, self._bank.power(item, cut, length), int(rng.integers(self._frames - length + 1))
                )
        level = noise.sum(1).mean()
        return noise / max(float(level), 1e-9)

    def _add_noise(self, rng: np.random.Generator, power: Power, level: float) -> None:
        """Add noise to a stream whose words have that mean level, in place."""
        noise = self._some_noise(rng)
        noise *= np.float32(level / 10 ** (rng.uniform(*self._mix.snr_db) / 10))
        phase = np.cos(rng.uniform(0, np.pi, power.shape).astype(np.float32))
        power += noise + 2 * self._interference * np.sqrt(power * noise) * phase
        np.maximum(power, 0, out=power)


def _warp(mels: int, amount: float) -> Power:
    """Return the matrix [mels, mels] by which a spectrum comes from a longer or shorter vocal tract."""
    # Linear in the mel scale's upper part, which is logarithmic in frequency: a shift; fading out below.
    source = np.arange(mels) - amount * mels / 4 * np.minimum(1, np.arange(mels) / (mels / 4))
    source = np.clip(source, 0, mels - 1)
    left = np.minimum(source.astype(int), mels - 2)
    matrix = np.zeros((mels, mels), np.float32)
    columns = np.arange(mels)
    matrix[left, columns] += 1 - (source - left)
    matrix[left + 1, columns] += source - left
    return matrix
