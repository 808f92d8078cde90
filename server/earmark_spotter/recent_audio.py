"""The newest audio of a stream, for the verifier."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_spotter.model import Float32Array
    from earmark_spotter.resampler import AudioPiece


class RecentAudio:
    """The newest audio of a stream at the model's rate; audio that is not needed any more is discarded."""

    def __init__(self, start_sample: int) -> None:
        self._pieces: deque[AudioPiece] = deque()
        self._start = start_sample

    def extend(self, pieces: Iterable[AudioPiece]) -> None:
        """Append pieces of audio: samples, [n], or the number of samples of digital silence."""
        self._pieces.extend(pieces)

    def discard_before(self, sample: int) -> None:
        """Discard the pieces that end before a sample."""
        while self._pieces and self._start + _length(self._pieces[0]) <= sample:
            self._start += _length(self._pieces.popleft())

    def samples(self, start: int, end: int) -> Float32Array:
        """Return the samples between two positions, [end - start]; zeros where there is no audio."""
        samples = np.zeros(end - start, np.float32)
        position = self._start
        for piece in self._pieces:
            next_position = position + _length(piece)
            first, last = max(start, position), min(end, next_position)
            if first < last and not isinstance(piece, int):
                samples[first - start : last - start] = piece[first - position : last - position]
            position = next_position
        return samples


def _length(piece: AudioPiece) -> int:
    return piece if isinstance(piece, int) else len(piece)
