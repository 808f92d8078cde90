"""Training examples: a word in its surroundings, made anew from the corpus for every batch.

An example is as long as the network needs for `OUTPUT_FRAMES` scores. The word's end (found by energy)
lies at a random one of them. Around it: nothing, read speech, or other words; over it: noise, room, band
limits, gain. So the network learns to answer when a word has just ended, whatever came before.

Masks say which scores the loss looks at:

* `answer`: in the 300 ms after the word's end the network should say `target`;
* `background`: here it must name no class but those that `allowed` lets pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from earmark_training.corpus import SAMPLE_RATE_HZ, Corpus, Recording
from earmark_training.errors import RecipeError
from earmark_training.vocabulary import SILENCE, UNKNOWN, keywords_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earmark_training.network import Shape


OUTPUT_FRAMES = 30
_ANSWER_FRAMES = 15  # from the word's end on
_END_FRAMES = (3, 14)  # where the word's end may lie among the output frames
_HEARD_FRACTION = 0.4  # of a word, before which nobody can know it
_FORGET_FRAMES = 25  # after the word's end, by which its score must have fallen


@dataclass(frozen=True, slots=True)
class Mix:
    """What a batch is made of, and how it is disturbed. Probabilities are per example."""

    keywords: int = 78
    unknown_words: int = 16
    speech: int = 40
    noise: int = 16
    left_context: float = 0.25
    right_context: float = 0.1
    add_noise: float = 0.75
    snr_db: tuple[float, float] = (-5.0, 30.0)
    gain_db: tuple[float, float] = (-25.0, 10.0)
    speed: tuple[float, float] = (0.87, 1.15)
    room: float = 0.2
    telephone: float = 0.2

    @property
    def size(self) -> int:
        """Examples in a batch."""
        return self.keywords + self.unknown_words + self.speech + self.noise


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of examples; F = OUTPUT_FRAMES, C = classes."""

    pcm: Tensor  # (B, samples)
    target: Tensor  # (B,) class
    answer: Tensor  # (B, F) bool
    background: Tensor  # (B, F) bool
    allowed: Tensor  # (B, C) bool


class ExampleMaker:
    """Makes batches from one split of a corpus. The same seed and step give the same batch."""

    def __init__(self, corpus: Corpus, shape: Shape, labels: tuple[str, ...], mix: Mix, *, seed: int) -> None:
        self._corpus, self._shape, self._mix, self._seed = corpus, shape, mix, seed
        self._labels = {label: i for i, label in enumerate(labels)}
        self._keywords = tuple(labels[2:])
        clips = corpus.select("clip", "training")
        self._by_keyword = [[c for c in clips if c.text == k] for k in self._keywords]
        missing = [k for k, found in zip(self._keywords, self._by_keyword, strict=True) if not found]
        if missing:
            raise RecipeError(f"no training clips of: {', '.join(missing)}")
        # Rare words are drawn more often than they occur, but less often than common ones.
        weights = np.array([len(found) for found in self._by_keyword]) ** 0.3
        self._keyword_weights = weights / weights.sum()
        self._unknown = [c for c in clips if c.text not in self._labels]
        self._speech = corpus.select("speech", "training")
        self._noise = corpus.select("noise", "training")
        self.samples = example_samples(shape)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which as many words come by as there are clips."""
        clips = sum(map(len, self._by_keyword)) + len(self._unknown)
        return round(clips / (self._mix.keywords + self._mix.unknown_words))

    def batch(self, step: int) -> Batch:
        """Return batch number `step`."""
        rng = np.random.default_rng((self._seed, step))
        mix, classes = self._mix, len(self._labels)
        b = mix.size
        pcm = np.zeros((b, self.samples), np.float32)
        power = np.zeros(b, np.float32)
        target = np.zeros(b, np.int64)
        answer, background = np.zeros((2, b, OUTPUT_FRAMES), bool)
        allowed = np.zeros((b, classes), bool)
        allowed[:, : self._labels[UNKNOWN] + 1] = True
        for i in range(b):
            if i < mix.keywords + mix.unknown_words:
                if i < mix.keywords or not self._unknown:
                    word = self._pick(
                        rng, self._by_keyword[rng.choice(len(self._keywords), p=self._keyword_weights)]
                    )
                else:
                    word = self._pick(rng, self._unknown)
                target[i] = self._labels.get(word.text, self._labels[UNKNOWN])
                power[i] = self._place_word(rng, word, pcm[i], answer[i], background[i])
            elif i < b - mix.noise and self._speech:
                utterance = self._pick(rng, self._speech)
                for keyword in keywords_in(utterance.text, self._keywords):
                    allowed[i, self._labels[keyword]] = True
                background[i] = True
                power[i] = self._place_speech(rng, utterance, pcm[i])
            else:
                allowed[i] = np.arange(classes) == self._labels[SILENCE]
                background[i] = True
                pcm[i] = self._some_noise(rng, self.samples, people=False) * rng.uniform(0, 1) ** 2
        self._disturb(rng, pcm, power)
        return Batch(*map(torch.from_numpy, (pcm, target, answer, background, allowed)))

    @staticmethod
    def _pick(rng: np.random.Generator, items: list[Recording]) -> Recording:
        return items[rng.integers(len(items))]

    def _cut(self, rng: np.random.Generator, recording: Recording, length: int) -> NDArray[np.float32]:
        """Return `length` samples from anywhere in a recording, or all of a shorter one."""
        cut = int(rng.integers(max(1, recording.length - length)))
        return self._corpus.samples(
            replace(recording, start=recording.start + cut, length=min(length, recording.length))
        )

    def _place_word(
        self,
        rng: np.random.Generator,
        word: Recording,
        pcm: NDArray[np.float32],
        answer: NDArray[np.bool_],
        background: NDArray[np.bool_],
    ) -> float:
        """Put a word and its neighbours into `pcm` and mark its frames; return the word's mean power."""
        frame = self._shape.frame_samples
        first = self._shape.receptive_field_samples - (self._shape.smoothing_frames - 1) * frame
        speed = rng.uniform(*self._mix.speed)
        clip = _change_speed(self._corpus.samples(word), speed)
        start, end = (int(x / speed) for x in word.word or (0, int(0.8 * word.length)))
        end_frame = int(rng.integers(*_END_FRAMES))
        offset = first + end_frame * frame + int(rng.integers(frame)) - end
        _add(pcm, clip, offset)
        heard = (offset + start + _HEARD_FRACTION * (end - start) - first) / frame
        is_unknown = word.text not in self._labels
        named_before = named_after = False
        if rng.random() < self._mix.left_context:
            named_before = self._place_neighbour(rng, pcm[: max(offset, 0)], at_end=True)
        if rng.random() < self._mix.right_context and offset + len(clip) < len(pcm):
            named_after = self._place_neighbour(rng, pcm[offset + len(clip) :], at_end=False)
        frames = np.arange(OUTPUT_FRAMES)
        answer[:] = (frames >= end_frame) & (frames < end_frame + _ANSWER_FRAMES)
        if not named_before:
            background |= (frames < heard) | is_unknown
        if not named_after:
            background |= (frames > end_frame + _FORGET_FRAMES) | (is_unknown & (frames >= end_frame))
        return float(np.square(clip[start:end]).mean())

    def _place_neighbour(self, rng: np.random.Generator, space: NDArray[np.float32], *, at_end: bool) -> bool:
        """Put other speech into `space` at its end or start; return whether it may hold a keyword."""
        if rng.random() < 0.5 and self._speech:
            utterance = self._pick(rng, self._speech)
            piece = self._cut(rng, utterance, len(space))
            named = bool(keywords_in(utterance.text, self._keywords))
        else:
            clips = (
                self._unknown
                if self._unknown and rng.random() < 0.3
                else self._by_keyword[rng.integers(len(self._keywords))]
            )
            clip = self._pick(rng, clips)
            piece, named = self._corpus.samples(clip)[-len(space) or None :], clip.text in self._labels
        _add(space, piece * 10 ** (rng.uniform(-9, 3) / 20), len(space) - len(piece) if at_end else 0)
        return named

    def _place_speech(
        self, rng: np.random.Generator, utterance: Recording, pcm: NDArray[np.float32]
    ) -> float:
        """Put a piece of an utterance into `pcm`, a third of the time a short one; return its mean power."""
        speed = rng.uniform(*self._mix.speed)
        length = len(pcm) if rng.random() < 0.67 else int(rng.uniform(0.3, 1.0) * SAMPLE_RATE_HZ)
        piece = _change_speed(self._cut(rng, utterance, int(length * speed)), speed)
        _add(pcm, piece, int(rng.integers(len(pcm) - len(piece) + 1)) if len(piece) < len(pcm) else 0)
        return float(np.square(piece).mean())

    def _some_noise(
        self, rng: np.random.Generator, length: int, *, people: bool = True
    ) -> NDArray[np.float32]:
        """Return noise of about unit peak: recorded, coloured, or some people talking; shape [length]."""
        kind = rng.uniform(0, 1 if people else 0.85)
        if kind < 0.6:
            piece = self._recorded_noise(rng, length)
            if rng.random() < 0.3:
                piece = piece + self._recorded_noise(rng, length) * np.float32(rng.uniform(0.1, 1))
        elif kind < 0.85 or not self._speech:
            spectrum = np.fft.rfft(rng.standard_normal(length, np.float32))
            colour = np.arange(1, len(spectrum) + 1, dtype=np.float32) ** (-rng.uniform(0, 2) / 2)
            piece = np.fft.irfft(spectrum * colour, length).astype(np.float32)
        else:
            piece = np.zeros(length, np.float32)
            for _ in range(rng.integers(3, 7)):
                self._place_speech(rng, self._pick(rng, self._speech), piece)
        return piece / np.float32(np.abs(piece).max() + 1e-6)

    def _recorded_noise(self, rng: np.random.Generator, length: int) -> NDArray[np.float32]:
        """Return recorded noise of unit power, made unlike the few recordings that there are.

        Played at 0.6 to 1.6 times its speed, half the time backwards, its spectrum tilted.
        """
        speed = rng.uniform(0.6, 1.6)
        piece = _change_speed(self._cut(rng, self._pick(rng, self._noise), int(length * speed) + 2), speed)
        piece = np.resize(piece[:: rng.choice((-1, 1))], length)
        piece[1:] += np.float32(rng.uniform(-0.8, 0.8)) * piece[:-1]
        scaled: NDArray[np.float32] = piece / np.float32(np.sqrt(np.square(piece).mean()) + 1e-6)
        return scaled

    def _disturb(
        self, rng: np.random.Generator, pcm: NDArray[np.float32], power: NDArray[np.float32]
    ) -> None:
        """Add room, noise, telephone band, gain and clipping to a batch (B, samples), in place."""
        mix = self._mix
        for i in range(len(pcm)):
            if power[i] > 0 and rng.random() < mix.room:
                pcm[i] = _filter(pcm[i], _room(rng, pcm.shape[1]))
            if power[i] > 0 and rng.random() < mix.add_noise:
                noise = self._some_noise(rng, pcm.shape[1])
                snr = 10 ** (rng.uniform(*mix.snr_db) / 10)
                pcm[i] += noise * np.sqrt(power[i] / snr / (np.square(noise).mean() + 1e-9))
            if rng.random() < mix.telephone:
                pcm[i] = _mu_law(_filter(pcm[i], _telephone(rng, pcm.shape[1])), rng.random() < 0.5)
            pcm[i] *= 10 ** (rng.uniform(*mix.gain_db) / 20)
        np.clip(pcm, -1, 1, out=pcm)


def example_samples(shape: Shape) -> int:
    """Return how many samples give OUTPUT_FRAMES unsmoothed scores."""
    extra = OUTPUT_FRAMES - shape.smoothing_frames
    return shape.receptive_field_samples + extra * shape.frame_samples


def _add(to: NDArray[np.float32], piece: NDArray[np.float32], offset: int) -> None:
    """Add `piece` at `offset`, which may lie before the start; what does not fit is left out."""
    piece = piece[max(0, -offset) : max(0, len(to) - offset)]
    start = max(0, offset)
    to[start : start + len(piece)] += piece


def _change_speed(samples: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    """Play `samples` faster (speed > 1) or slower, pitch included, by linear interpolation."""
    times = np.arange(int(len(samples) / speed), dtype=np.float32) * np.float32(speed)
    left = times.astype(np.int64)
    right = np.minimum(left + 1, len(samples) - 1)
    weight = times - left
    return samples[left] * (1 - weight) + samples[right] * weight


def _filter(samples: NDArray[np.float32], response: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Filter by a frequency response for twice the length (so that nothing wraps around)."""
    length = len(samples)
    return np.fft.irfft(np.fft.rfft(samples, 2 * length) * response, 2 * length)[:length].astype(np.float32)


def _room(rng: np.random.Generator, length: int) -> NDArray[np.complex64]:
    """Return the response of a made-up room: a direct path, then noise that decays by 60 dB within 0.6 s."""
    decay = rng.uniform(0.1, 0.6)
    tail = rng.standard_normal(int(decay * SAMPLE_RATE_HZ), np.float32)
    tail *= np.exp(-6.9 * np.arange(len(tail)) / len(tail)).astype(np.float32)
    tail *= np.float32(10 ** (rng.uniform(-12, 3) / 20) / np.sqrt(np.square(tail).sum()))
    impulse = np.concatenate((np.ones(1, np.float32), np.zeros(int(rng.integers(16, 160)), np.float32), tail))
    return np.fft.rfft(impulse, 2 * length).astype(np.complex64)


def _telephone(rng: np.random.Generator, length: int) -> NDArray[np.complex64]:
    """Return the response of a telephone: nothing above 3.4 to 4 kHz, half the time little below 300 Hz."""
    hz = np.arange(length + 1) * (SAMPLE_RATE_HZ / 2 / length)
    low, high = rng.uniform(50, 300) * (rng.random() < 0.5), rng.uniform(3400, 4000)
    response: NDArray[np.complex64] = 1 / (1 + (low / np.maximum(hz, 1)) ** 4) / (1 + (hz / high) ** 40) + 0j
    return response.astype(np.complex64)


def _mu_law(samples: NDArray[np.float32], apply: bool) -> NDArray[np.float32]:
    """Quantise as 8-bit mu-law does (ITU-T G.711, by its continuous formula)."""
    if not apply:
        return samples
    companded = np.log1p(255 * np.minimum(np.abs(samples), 1)) / np.float32(np.log(256))
    levels = np.rint(companded * 127) / 127
    expanded: NDArray[np.float32] = np.expm1(levels * np.float32(np.log(256))) / 255
    return np.copysign(expanded, samples)
