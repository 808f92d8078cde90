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
from earmark_training.data.spectral_rooms import limit_band, reverberate
from earmark_training.data.transcripts import tolerance_samples
from earmark_training.data.vocabulary import SILENCE, UNKNOWN, accepted_words
from earmark_training.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
_BABBLE = 2  # the index of babble in `Mix.noises`
_ONSET_FRAMES, _PAUSE_FRAMES, _PAUSE_DB = 3, 20, 22.0
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
    speech_snr_db: tuple[float, float] = (-5.0, 30.0)
    """SNR in examples of read speech only."""
    onset: float = 0.0
    """A piece of read speech starts where the reader starts to speak, at the start or after a pause."""
    by_word: float = 0.0
    """The next unknown word is drawn with equal probability of each word, instead of each clip."""
    room: float = 0.0
    """All speech of an example is in one room."""
    band_limit: float = 0.0
    """The example is band-limited as by a telephone or a small loudspeaker."""
    noises: tuple[float, ...] = (0.6, 0.25, 0.15)
    """Shares of recorded noise, synthetic noise, babble, music and signal tones in all noise."""
    noises_alone: tuple[float, ...] | None = None
    """The same for examples of noise only; None means `noises`."""
    talkers: tuple[int, int] = (3, 7)
    """Range of the number of talkers in babble, without the upper end."""


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


def check_keywords(keywords: Sequence[str], words_of_clips: Iterable[str]) -> None:
    """Raise RecipeError if there are no training clips of a keyword."""
    words = set(words_of_clips)
    missing = [keyword for keyword in keywords if keyword not in words]
    if missing:
        raise RecipeError(
            f"no training clips of: {', '.join(missing)}. "
            f"There are clips of: {', '.join(sorted(words)[:20])}. Choose among them with --keywords A,B"
        )


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
        check_keywords(keywords, (clip.text for clip in clips))
        self._unknown = [c for c in clips if c.text not in self._labels]
        self._speech = [i for i in cache.items if i.kind == "speech"]
        self._noise = [i for i in cache.items if i.kind == "noise"]
        self._synthetic = [i for i in cache.items if i.kind == "synthetic"]
        self._music = [i for i in cache.items if i.kind == "music"]
        self._tones = [i for i in cache.items if i.kind == "tones"]
        unknown_words = sorted({c.text for c in self._unknown})
        self._unknown_by_word = [[c for c in self._unknown if c.text == w] for w in unknown_words]
        self._onsets = {i.start: speech_onsets(cache, i) for i in self._speech} if mix.onset else {}
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
        self._bins_per_band = np.maximum(1, mel.sum(0) ** 2 / np.square(mel).sum(0) / 1.5).astype(np.float32)
        self._band_hz = band_centers_hz(front_end)

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
                noise = self._make_noise(rng, mix.noises_alone or mix.noises)
                power[i] = noise * np.float32(10 ** rng.uniform(*_NOISE_LEVEL))
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
                if mix.room and rng.random() < mix.room:
                    reverberate(rng, power[i], self._bins_per_band, self._seconds)
                if noisy:
                    only_speech = kind < mix.noise + mix.speech
                    self._add_noise(rng, power[i], level, mix.speech_snr_db if only_speech else mix.snr_db)
            if mix.band_limit and rng.random() < mix.band_limit:
                limit_band(rng, power[i], self._band_hz)
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
                unknown = self._unknown or self._by_keyword[0]
                if mix.by_word and self._unknown and rng.random() < mix.by_word:
                    unknown = self._unknown_by_word[rng.integers(len(self._unknown_by_word))]
                item = self._pick(rng, unknown)
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
        onsets = self._onsets.get(item.start)
        if onsets is not None and rng.random() < self._mix.onset:
            # A little before the first sound, perhaps with the end of what was said before the pause.
            first = max(0, int(onsets[rng.integers(len(onsets))]) - int(rng.integers(2, 25)))
            return first, min(length, item.frames - first)
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

    def _make_noise(self, rng: np.random.Generator, shares: tuple[float, ...]) -> Power:
        """Return noise of an example's length and mean level 1, of a kind drawn with the given shares."""
        kind = int(np.searchsorted(np.cumsum(shares), rng.random(), side="right"))
        if kind != _BABBLE or not self._speech:
            items = (self._noise, self._synthetic, [], self._music, self._tones)[min(kind, 4)]
            item = self._pick(rng, items or self._noise or self._synthetic)
            cut, length = self._cut(rng, item, self._frames)
            noise = np.resize(self._cache.power(item, cut, length), (self._frames, self._front_end.mels))
        else:
            noise = np.zeros((self._frames, self._front_end.mels), np.float32)
            for _ in range(rng.integers(*self._mix.talkers)):
                item = self._pick(rng, self._speech)
                cut, length = self._cut(rng, item, self._frames)
                add_at(
                    noise, self._cache.power(item, cut, length), int(rng.integers(self._frames - length + 1))
                )
        level = noise.sum(1).mean()
        return noise / max(float(level), 1e-9)

    def _add_noise(
        self, rng: np.random.Generator, power: Power, level: float, snr_db: tuple[float, float]
    ) -> None:
        """Add noise at a random SNR to an example whose words have the given level, in place."""
        noise = self._make_noise(rng, self._mix.noises)
        noise *= np.float32(level / 10 ** (rng.uniform(*snr_db) / 10))
        phase = np.cos(rng.uniform(0, np.pi, power.shape).astype(np.float32))
        power += noise + 2 * self._interference * np.sqrt(power * noise) * phase
        np.maximum(power, 0, out=power)


def band_centers_hz(front_end: FrontEnd) -> NDArray[np.float64]:
    """Return the center of each mel band in Hz, [mels]."""
    lowest, highest = (2595 * np.log10(1 + hz / 700) for hz in (front_end.low_hz, front_end.high_hz))
    mel = np.linspace(lowest, highest, front_end.mels + 2)[1:-1]
    centers: NDArray[np.float64] = 700 * (10 ** (mel / 2595) - 1)
    return centers


def speech_onsets(cache: FeatureCache, item: Item) -> NDArray[np.int64]:
    """Return the frames of an utterance where speech starts: the first sound, and those after pauses, [n]."""
    level_db = 10 * np.log10(cache.power(item).sum(1) + 1e-10)
    level_db = np.convolve(level_db, np.full(_ONSET_FRAMES, 1 / _ONSET_FRAMES), mode="same")
    frames = np.flatnonzero(level_db > np.percentile(level_db, 95) - _PAUSE_DB)
    if not len(frames):
        return np.zeros(1, np.int64)
    return frames[np.diff(frames, prepend=-_PAUSE_FRAMES) >= _PAUSE_FRAMES]


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
