"""A stream's audio between its source and the server, kept for as long as it may have to be sent again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from earmark_client.audio import Silence, frame_bytes, pcm_messages
from earmark_client.errors import IncompatibleServerError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.audio import Chunk, Encoding

# Audio that is kept is put together in pieces of that length, however short the chunks were.
_PIECE_BYTES = 32 * 1024

_LONGEST_SILENCE_S = 3600

# Audio as bytes, or a silence as the number of bytes that it stands for: one count for both.
Piece = bytes | bytearray | int


class Outbox:
    """Holds the audio from where a resume would begin, and knows how much of it this call has sent.

    It has room until it holds more than `keep_s` seconds, be they audio or silence: at most that
    much and the piece that went beyond it (256 KiB, or one silence) is held. With `keep_s` 0 only
    what is still to be sent is held, and there is room when all of that is sent.

    Positions are bytes of the stream's encoding since the start of its audio, silence included. No
    locks, no waiting: that is its users'.
    """

    def __init__(
        self, *, sample_rate_hz: int, encoding: Encoding, channels: int, start_s: float, keep_s: float
    ) -> None:
        self._rate_hz = sample_rate_hz
        self._encoding = encoding
        self._frame_bytes = frame_bytes(encoding, channels)
        self._limit = self._position(keep_s)
        self._sent: deque[bytearray | int] = deque()
        self._unsent: deque[bytearray | int] = deque()
        self._start = self._next = self._end = self._position(start_s)
        self.over = False
        self.failure: Exception | None = None
        """What the source failed with, once it is over."""

    @property
    def kept_s(self) -> float:
        """How much audio is held, in seconds."""
        return self._seconds(self._end - self._start)

    @property
    def end_s(self) -> float:
        """The end of the audio taken so far, in seconds from the start of the stream's audio."""
        return self._seconds(self._end)

    @property
    def all_sent(self) -> bool:
        """Whether nothing waits to be sent on this call."""
        return not self._unsent

    @property
    def has_room(self) -> bool:
        """Whether more is to be taken from the source."""
        return self._end - self._start <= self._limit

    def pieces(self, chunk: Chunk) -> Iterator[Piece]:
        """Cut a chunk of the source into pieces of a size that every server takes.

        InvalidRequestError for what cannot be sent.
        """
        if not isinstance(chunk, Silence):
            yield from pcm_messages(chunk, self._encoding)
        elif 0 <= chunk.seconds <= _LONGEST_SILENCE_S:
            # In whole samples, as the server counts it, so that it can be sent again from its middle.
            yield self._position(chunk.seconds)
        else:
            raise InvalidRequestError(
                f"a silence must be 0 to {_LONGEST_SILENCE_S} s long, not {chunk.seconds:g} s",
                reason="BAD_AUDIO",
            )

    def put(self, piece: Piece) -> None:
        """Take what comes next from the source."""
        if _length(piece):
            self._end += _length(piece)
            _append(self._unsent, piece)

    def end(self, failure: Exception | None = None) -> None:
        """Take the end of the source, or what it failed with."""
        self.over, self.failure = True, failure

    def next(self) -> bytes | Silence | None:
        """Give what is to be sent next on this call; None where nothing waits."""
        if not self._unsent:
            return None
        piece = self._unsent.popleft()
        self._next += _length(piece)
        message = Silence(self._seconds(piece)) if isinstance(piece, int) else bytes(piece)
        if self._limit:
            _append(self._sent, piece)
        else:
            self._start = self._next
        return message

    def forget(self, replay_s: float) -> None:
        """Let go of the audio before a Progress' `replay_s`.

        IncompatibleServerError where that lies before what is held, or after what was sent.
        """
        position = self._position(replay_s)
        if not self._start <= position <= self._next:
            raise IncompatibleServerError(
                f"the server wants to resume from {replay_s:g} s, but {self._seconds(self._start):g} s to "
                f"{self._seconds(self._next):g} s of the audio are held and sent"
            )
        while self._start < position:
            ahead, first = position - self._start, self._sent[0]
            if _length(first) <= ahead:
                self._start += _length(self._sent.popleft())
                continue
            if isinstance(first, int):
                self._sent[0] = first - ahead
            else:
                del first[:ahead]
            self._start = position

    def rewind(self) -> None:
        """Begin a new call: all that is held is to be sent again."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._next = self._start

    def _position(self, seconds: float) -> int:
        return round(seconds * self._rate_hz) * self._frame_bytes

    def _seconds(self, position: int) -> float:
        return position / self._frame_bytes / self._rate_hz


def _length(piece: Piece) -> int:
    return piece if isinstance(piece, int) else len(piece)


def _append(pieces: deque[bytearray | int], piece: Piece) -> None:
    """Put a piece after others, within the last one where both are short."""
    if isinstance(piece, int):
        pieces.append(piece)
        return
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray) and len(last) + len(piece) <= _PIECE_BYTES:
        last += piece
    else:
        pieces.append(piece if isinstance(piece, bytearray) else bytearray(piece))
