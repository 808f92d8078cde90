"""Tuning examples: the keyword, or what is none, in surroundings that are made anew for every batch.

An example is longer than what the network looks back on, so one pass gives it many scores to be right
about, and a word's end lies anywhere among them. Masks say which scores the loss looks at: in the 300 ms
after the keyword's end the network should say it, everywhere else that is told it must not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from earmark_training.data.augment import add_at, synthetic, vary_voice
from earmark_training.data.corpus import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from earmark_training.data.corpus import Recording
    from earmark_training.keyword.material import Material
    from earmark_training.model.network import Shape

_T = TypeVar("_T")

_SCORED_S = 1.6  # about how much of an example has scores
_ANSWER_S = 0.3  # from the word's end on
_FORGET_S = 0.5  # after the word's end, by which its score must have fallen
_HEARD_FRACTION = 0.5  # of a word, before which nobody can know it
_PART_FRACTION = (0.3, 0.65)  # how much of a word is still no keyword
_MARGIN_S = 0.6  # of a recording, around its word
_NOISES, _NOISE_S = 40, 6


@dataclass(frozen=True, slots=True)
class Mix:
    """What a batch is made of, and how it is disturbed. Shares and probabilities are per example."""

    size: int = 48
    keyword: float = 0.4
    part: float = 0.1
    """A piece of the keyword, which is none."""
    lookalike: float = 0.1
    mined: float = 0.15
    """A place that sounded like the keyword to an earlier round."""
    noise: float = 0.05
    voices: float = 0.3
    """Of the keywords: spoken by a synthesizer, where there is one."""
    before: float = 0.5
    """Somebody speaks until shortly before the word."""
    after: float = 0.4
    add_noise: float = 0.5
    snr_db: tuple[float, float] = (0.0, 30.0)
    gain_db: tuple[float, float] = (-25.0, 10.0)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of examples; F = scored frames."""

    pcm: Tensor  # (B, samples)
    answer: Tensor  # (B, F) bool: here the keyword should be heard
    background: Tensor  # (B, F) bool: here it must not


Mined = tuple["Recording", int]
"""A recording, and the sample up to which it sounded like the keyword."""


@dataclass(frozen=True, slots=True)
class _Word:
    """A sound with a word in it: samples, and where the word is in them."""

    samples: NDArray[np.float32]
    start: int
    end: int

    @property
    def power(self) -> float:
        return float(np.square(self.samples[self.start : self.end]).mean())


class ExampleMaker:
    """Makes batches. The same seed, step and mined places give the same batch."""

    def __init__(self, material: Material, shape: Shape, mix: Mix, *, seed: int) -> None:
        self._material, self._mix, self._seed = material, mix, seed
        self._frame = shape.frame_samples
        self._first = shape.unsmoothed_field_samples
        self._frames = int(_SCORED_S * SAMPLE_RATE_HZ) // self._frame
        self._samples = self._first + (self._frames - 1) * self._frame
        # Making noise takes longer than all the rest: there is a stock of it.
        rng = np.random.default_rng((seed, 1))
        self._noises = [synthetic(rng, _NOISE_S * SAMPLE_RATE_HZ) for _ in range(_NOISES)]

    def batch(self, step: int, mined: Sequence[Mined] = ()) -> Batch:
        """Return batch number `step`; some of its negatives are places that were mined."""
        rng = np.random.default_rng((self._seed, 2, step))
        pcm = np.zeros((self._mix.size, self._samples), np.float32)
        answer, background = np.zeros((2, self._mix.size, self._frames), bool)
        for i, kind in enumerate(self._kinds(mined)):
            background[i] = True
            power = 0.0
            if kind in ("keyword", "part", "lookalike"):
                word = self._word(rng, kind)
                power = word.power
                ends_at = self._place(rng, word, pcm[i])
                if kind == "keyword":
                    answer[i], background[i] = self._marks(ends_at, word.end - word.start)
            elif kind == "mined":
                power = self._place_mined(rng, _pick(rng, mined), pcm[i])
            elif kind == "speech":
                power = self._place_speech(rng, pcm[i])
            else:
                pcm[i] = self._some_noise(rng) * np.float32(0.1 * rng.uniform(0, 1) ** 2)
            if power > 0 and rng.random() < self._mix.add_noise:
                level = np.sqrt(power / 10 ** (rng.uniform(*self._mix.snr_db) / 10))
                pcm[i] += self._some_noise(rng) * np.float32(level)
            pcm[i] *= np.float32(10 ** (rng.uniform(*self._mix.gain_db) / 20))
        np.clip(pcm, -1, 1, out=pcm)
        return Batch(*map(torch.from_numpy, (pcm, answer, background)))

    def _kinds(self, mined: Sequence[Mined]) -> list[str]:
        """Return what each example of a batch is to be; what there is none of becomes speech."""
        mix, material = self._mix, self._material
        there = {"keyword": True, "part": bool(material.takes), "lookalike": bool(material.lookalikes)}
        there |= {"mined": bool(mined), "noise": True}
        kinds = [k for k, has in there.items() if has for _ in range(round(mix.size * getattr(mix, k)))]
        return kinds + ["speech"] * (mix.size - len(kinds))

    def _word(self, rng: np.random.Generator, kind: str) -> _Word:
        """Return the keyword, a part of it, or a word that sounds like it, as another would say it."""
        material = self._material
        some: Sequence[Recording] = material.takes
        if kind == "lookalike":
            some = material.lookalikes
        elif material.voices and (not some or rng.random() < self._mix.voices):
            some = material.voices
        take = _pick(rng, some)
        start, end = take.word or (0, take.length)
        first = max(0, start - int(_MARGIN_S * SAMPLE_RATE_HZ))
        samples = material.corpus.samples(take)[first : end + int(_MARGIN_S * SAMPLE_RATE_HZ)]
        samples, speed = vary_voice(rng, samples)
        start, end = int((start - first) / speed), int((end - first) / speed)
        word = _Word(samples, start, end)
        return _part(rng, word) if kind == "part" else word

    def _place(self, rng: np.random.Generator, word: _Word, pcm: NDArray[np.float32]) -> int:
        """Put a word into `pcm`, perhaps among other speech; return where it ends there."""
        ends_at = int(rng.integers(self._first + self._frame, len(pcm) - 2 * self._frame))
        samples, offset = word.samples, ends_at - word.end
        if rng.random() < self._mix.before:
            margin = max(0, word.start - int(rng.uniform(0.02, 0.2) * SAMPLE_RATE_HZ))
            samples, offset = samples[margin:], offset + margin
            space = pcm[: max(0, offset - int(rng.uniform(0, 0.4) * SAMPLE_RATE_HZ))]
            speech = self._some_speech(rng, len(space))
            add_at(space, speech, len(space) - len(speech))
        add_at(pcm, samples, offset)
        if rng.random() < self._mix.after:
            space = pcm[ends_at + int(rng.uniform(0.05, 0.5) * SAMPLE_RATE_HZ) :]
            add_at(space, self._some_speech(rng, len(space)), 0)
        return ends_at

    def _marks(self, ends_at: int, length: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return where the keyword should be heard, and where it must not, [frames] each."""
        heard_until = self._first + np.arange(self._frames) * self._frame
        answer = (heard_until >= ends_at) & (heard_until < ends_at + _ANSWER_S * SAMPLE_RATE_HZ)
        background = heard_until < ends_at - (1 - _HEARD_FRACTION) * length
        return answer, background | (heard_until > ends_at + _FORGET_S * SAMPLE_RATE_HZ)

    def _place_mined(self, rng: np.random.Generator, mined: Mined, pcm: NDArray[np.float32]) -> float:
        recording, until = mined
        offset = int(rng.integers(self._first, len(pcm))) - until
        add_at(pcm, self._material.corpus.samples(recording), offset)
        return float(np.square(pcm).mean())

    def _place_speech(self, rng: np.random.Generator, pcm: NDArray[np.float32]) -> float:
        speech, _ = vary_voice(rng, self._some_speech(rng, int(1.2 * len(pcm))))
        add_at(pcm, speech, 0)
        return float(np.square(pcm).mean())

    def _some_speech(self, rng: np.random.Generator, length: int) -> NDArray[np.float32]:
        """Return `length` samples from anywhere in some speech, or all of a shorter piece, at some level."""
        speech = _pick(rng, self._material.speech)
        at = int(rng.integers(max(1, speech.length - length)))
        piece = replace(speech, start=speech.start + at, length=min(length, speech.length))
        level = np.float32(10 ** (rng.uniform(-10, 3) / 20))
        return np.multiply(self._material.corpus.samples(piece), level)

    def _some_noise(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return noise of unit power, as long as an example: a sound of no speech, or some people talking."""
        if rng.random() < 0.6:
            noise = _pick(rng, self._noises)
            at = int(rng.integers(len(noise) - self._samples))
            noise = noise[at : at + self._samples]
        else:
            noise = np.zeros(self._samples, np.float32)
            for _ in range(rng.integers(1, 6)):
                voice = self._some_speech(rng, self._samples)
                add_at(noise, voice / (np.sqrt(np.square(voice).mean()) + np.float32(1e-6)), 0)
        scaled: NDArray[np.float32] = noise / (np.sqrt(np.square(noise).mean()) + np.float32(1e-4))
        return scaled


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _part(rng: np.random.Generator, word: _Word) -> _Word:
    """Return a word's beginning or its end alone."""
    length = int((word.end - word.start) * rng.uniform(*_PART_FRACTION))
    if rng.random() < 0.5:
        piece, start, end = word.samples[: word.start + length].copy(), word.start, word.start + length
    else:
        piece, start, end = word.samples[word.end - length :].copy(), 0, length
    fade = np.linspace(0, 1, min(len(piece), SAMPLE_RATE_HZ // 100), dtype=np.float32)
    piece[: len(fade)] *= fade
    piece[len(piece) - len(fade) :] *= fade[::-1]
    return _Word(piece, start, end)
