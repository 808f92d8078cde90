"""A queue of mono samples at the model's rate, in which digital silence is only a count."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from earmark_spotter.model import Float32Array
    from earmark_spotter.resampler import AudioPiece


class SampleQueue:
    """Samples that the model has not processed yet. Its length is in samples."""

    def __init__(self, consumed_silence: int) -> None:
        """`consumed_silence`: the digital silence that precedes the first sample."""
        self._pieces: deque[AudioPiece] = deque()
        self._length = 0
        self._silent_pieces = 0
        self.consumed_silence = consumed_silence
        """The length of the digital silence that ends at the first sample of the queue."""

    def __len__(self) -> int:
        """Return the number of samples."""
        return self._length

    @property
    def leading_silence(self) -> int:
        """The length of the digital silence at the head of the queue."""
        if not self._silent_pieces:
            return 0
        first = self._pieces[0]
        return first if isinstance(first, int) else 0

    def extend(self, pieces: Iterable[AudioPiece]) -> None:
        """Append pieces of audio; arrays are not silent."""
        for piece in pieces:
            if isinstance(piece, int):
                self.append_silence(piece)
            else:
                self._pieces.append(piece)
                self._length += piece.shape[0]

    def append_silence(self, count: int) -> None:
        """Append `count` samples of digital silence."""
        if not count:
            return
        self._length += count
        if self._pieces and isinstance(self._pieces[-1], int):
            self._pieces[-1] += count
        else:
            self._pieces.append(count)
            self._silent_pieces += 1

    def consume(self, count: int) -> Float32Array:
        """Remove and return the first samples, [count], read-only; `count` must be 1 to the length."""
        self._length -= count
        piece = self._consume_piece(count)
        if piece.shape[0] == count:
            return piece
        pieces, missing = [piece], count - piece.shape[0]
        while missing:
            piece = self._consume_piece(missing)
            pieces.append(piece)
            missing -= piece.shape[0]
        return np.concatenate(pieces)

    def peek(self, count: int) -> Float32Array:
        """Return the first samples, [count], read-only, and leave them in the queue."""
        samples = self.consume(count)
        self.prepend(samples)
        return samples

    def prepend(self, samples: Float32Array) -> None:
        """Put samples back at the head of the queue; their silence does not count as consumed any more."""
        self._pieces.appendleft(samples)
        self._length += samples.shape[0]
        self.consumed_silence = 0

    def drop_silence(self, count: int) -> None:
        """Remove samples of the leading silence."""
        self._length -= count
        self.consumed_silence += count
        first = self._pieces[0]
        assert isinstance(first, int)
        self._set_first(first - count)

    def samples_before_silence(self, length: int, multiple: int, limit: int) -> int:
        """Return the number of samples before the next position that follows silence and precedes it.

        At that position, `length` samples of digital silence precede and `multiple` samples of it follow.
        The result is a multiple of `multiple`, at most `limit` rounded down to one and the whole queue.
        """
        limit = min(limit, self._length) // multiple * multiple
        if not self._silent_pieces:
            return limit
        run, position = self.consumed_silence, 0
        for piece in self._pieces:
            if isinstance(piece, int):
                start = -(-(position + max(0, length - run)) // multiple) * multiple
                if start + multiple <= position + piece:
                    return min(start, limit)
                run, position = run + piece, position + piece
            else:
                run, position = 0, position + piece.shape[0]
            if position >= limit:
                break
        return limit

    def _consume_piece(self, limit: int) -> Float32Array:
        """Remove and return the first piece, or its first samples if it is longer than `limit`."""
        first = self._pieces[0]
        if isinstance(first, int):
            count = min(first, limit)
            self.consumed_silence += count
            self._set_first(first - count)
            return np.zeros(count, np.float32)
        self.consumed_silence = 0
        if first.shape[0] > limit:
            self._pieces[0] = first[limit:]
            return first[:limit]
        self._pieces.popleft()
        return first

    def _set_first(self, silence: int) -> None:
        if silence:
            self._pieces[0] = silence
        else:
            self._pieces.popleft()
            self._silent_pieces -= 1
