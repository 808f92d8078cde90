"""Pending audio: the audio of one call that has arrived and has not been decoded yet."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from earmark_spotter import AudioError

if TYPE_CHECKING:
    from earmark_spotter import AudioFormat
    from earmark_spotter.model import Float32Array
    from earmark_spotter.stream_audio import StreamAudio

# A long message is decoded in pieces of this length, so that it does not delay other streams. Short
# messages are joined up to this length, because decoding costs about the same for any short piece.
_PIECE_S = 0.4


class End(enum.Enum):
    """The end of the audio."""

    OF_AUDIO = enum.auto()
    """The client has half-closed the call."""
    EARLY = enum.auto()
    """The call ends with an error: a sample that is split is discarded."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A pause for which the client sent no audio, in samples at the stream's own rate."""

    samples: int


Input: TypeAlias = "bytes | Float32Array | Silence | End"
"""One item of input: bytes in the format of the call, mono float32 samples [n], a pause, or the end."""


class PendingAudio:
    """The queue of a call's input. The event loop appends to it; the engine's thread decodes it step by step.

    Input is decoded only as far as the next inference needs it, so that a message occupies its own size
    and not a multiple of it.
    """

    def __init__(self, audio: StreamAudio, audio_format: AudioFormat) -> None:
        self._audio = audio
        self._piece_samples = max(1, round(audio_format.sample_rate_hz * _PIECE_S))
        self._piece_bytes = self._piece_samples * audio_format.frame_bytes
        self._items: deque[Input] = deque()
        self._position = 0  # in the first item
        self.released_bytes = 0
        """Bytes of all items that are decoded completely; written by the engine's thread."""
        self.error: AudioError | None = None
        """What is wrong with the audio, which ends before that."""

    def __len__(self) -> int:
        """Return the number of messages that are not decoded yet."""
        return len(self._items)

    def append(self, item: Input) -> None:
        """Add the next item; the only method for the event loop."""
        self._items.append(item)

    def clear(self) -> None:
        """Discard all items, at the end of the stream."""
        self._items.clear()

    def decode(self, limit_s: float) -> None:
        """Decode input until one of the models has about `limit_s` of audio, or there is no more input.

        So the others cannot fall behind. Invalid audio ends the stream: `error` is set, and what follows is
        discarded.
        """
        try:
            self._decode(limit_s)
        except AudioError as error:
            self.error = error
            self._audio.finish(discard_split=True)
            self._decode(limit_s)

    def _decode(self, limit_s: float) -> None:
        audio, items = self._audio, self._items
        while items and not audio.has_ready(limit_s):
            item = items[0]
            if self.error is not None:
                items.popleft()
                continue
            if isinstance(item, bytes):
                audio.push_audio(self._next_bytes(item))
            elif isinstance(item, np.ndarray):
                audio.push_samples(item[self._next_piece(len(item), self._piece_samples)])
                if not self._position:
                    self.released_bytes += item.nbytes
            else:
                items.popleft()
                if isinstance(item, Silence):
                    audio.push_silence(item.samples)
                else:
                    audio.finish(discard_split=item is End.EARLY)

    def _next_bytes(self, first: bytes) -> bytes:
        """Remove and return one piece: a part of a long message, or several short messages joined."""
        if len(first) > self._piece_bytes:
            piece = first[self._next_piece(len(first), self._piece_bytes)]
            if not self._position:
                self.released_bytes += len(first)
            return piece
        messages, free = [], self._piece_bytes
        while self._items and isinstance(item := self._items[0], bytes) and len(item) <= free:
            messages.append(item)
            free -= len(item)
            self._items.popleft()
            self.released_bytes += len(item)
        return b"".join(messages)

    def _next_piece(self, length: int, size: int) -> slice:
        """Return the position of the next piece in the first item, and advance past it."""
        start = self._position
        self._position += size
        if self._position >= length:
            self._items.popleft()
            self._position = 0
        return slice(start, start + size)
