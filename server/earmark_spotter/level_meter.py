"""The level of a keyword and of the noise before it, from the energies of short blocks of the audio."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_spotter.model import Float32Array
    from earmark_spotter.resampler import AudioPiece

_BLOCK_MS = 10
_NOISE_BLOCKS = 10
_WINDOW = np.full(_NOISE_BLOCKS, 1 / _NOISE_BLOCKS)
# Energies are computed for this much audio at once, which costs less.
_BATCH_S = 0.5
_LOWEST_DBFS = -100.0


class LevelMeter:
    """Measures levels in the newest audio of a stream, in dB relative to full scale.

    0 dBFS is the mean power of a square wave between -1 and 1. Digital silence counts as -100 dBFS. Blocks
    begin at fixed positions of the audio, so that levels do not depend on how the audio arrived.
    """

    def __init__(self, rate_hz: int, start_sample: int) -> None:
        self._block = rate_hz * _BLOCK_MS // 1000
        self._batch = round(rate_hz * _BATCH_S)
        self._first = start_sample // self._block
        # Mean squares of blocks, or how many blocks are digital silence.
        self._energies: deque[np.ndarray | int] = deque()
        self._pending: list[Float32Array] = []
        self._pending_samples = 0

    def extend(self, pieces: Iterable[AudioPiece]) -> None:
        """Append pieces of audio: samples, [n], or the number of samples of digital silence."""
        for piece in pieces:
            if not isinstance(piece, int):
                self._append(piece)
                continue
            # The silence up to the end of the block, the whole blocks, and the rest.
            to_boundary = min(piece, -self._pending_samples % self._block)
            self._append(np.zeros(to_boundary, np.float32))
            blocks, rest = divmod(piece - to_boundary, self._block)
            if blocks:
                self._measure()
                self._energies.append(blocks)
            self._append(np.zeros(rest, np.float32))

    def discard_before(self, sample: int) -> None:
        """Discard blocks that end before a sample, where that is cheap."""
        while self._energies:
            first = self._energies[0]
            excess = sample // self._block - self._first
            if excess <= 0:
                return
            length = first if isinstance(first, int) else len(first)
            if length <= excess:
                self._first += length
                self._energies.popleft()
            elif isinstance(first, int):
                self._first += excess
                self._energies[0] = first - excess
            else:
                return

    def levels(self, start: int, end: int, noise_samples: int) -> tuple[float | None, float | None]:
        """Return the level of the samples from `start` to `end`, and how far it is above the noise, in dB.

        The noise is the quietest 100 ms in the `noise_samples` before `start`. None without such audio.
        """
        self._measure()
        begin = start // self._block
        word = self._blocks(begin, max(begin + 1, end // self._block))
        if not len(word):
            return None, None
        level = _dbfs(float(word.mean()))
        noise = self._blocks((start - noise_samples) // self._block, begin)
        if len(noise) < _NOISE_BLOCKS:
            return round(level, 1), None
        quietest = np.convolve(noise, _WINDOW, "valid").min()
        return round(level, 1), round(level - _dbfs(float(quietest)), 1)

    def _append(self, samples: Float32Array) -> None:
        if len(samples):
            self._pending.append(samples)
            self._pending_samples += len(samples)
            if self._pending_samples >= self._batch:
                self._measure()

    def _measure(self) -> None:
        """Compute the energies of all whole blocks that are pending."""
        blocks = self._pending_samples // self._block
        if not blocks:
            return
        samples = np.concatenate(self._pending) if len(self._pending) > 1 else self._pending[0]
        whole = blocks * self._block
        # Double precision, so that rounding does not depend on the alignment of the array.
        rows = samples[:whole].astype(np.float64).reshape(blocks, self._block)
        self._energies.append(np.einsum("ij,ij->i", rows, rows) / self._block)
        self._pending = [samples[whole:].copy()] if whole < len(samples) else []
        self._pending_samples -= whole

    def _blocks(self, begin: int, end: int) -> np.ndarray:
        """Return the mean squares of the blocks between two, [blocks], as far as they are here."""
        found, position = [np.zeros(0)], self._first
        for piece in self._energies:
            length = piece if isinstance(piece, int) else len(piece)
            first, last = max(begin - position, 0), min(end - position, length)
            if first < last:
                found.append(np.zeros(last - first) if isinstance(piece, int) else piece[first:last])
            position += length
        return np.concatenate(found)


def _dbfs(mean_square: float) -> float:
    lowest = 10 ** (_LOWEST_DBFS / 10)
    return 10 * math.log10(max(mean_square, lowest))
