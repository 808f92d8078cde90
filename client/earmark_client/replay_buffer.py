"""Audio between its source and the server, kept until no server can ask for it again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from earmark_client.audio import Silence, is_number, pcm_messages, piece_bytes
from earmark_client.errors import IncompatibleServerError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.audio import AudioFormat, Chunk, Piece
    from earmark_client.audio_clip import RecentAudio
    from earmark_client.source_gate import SourceGate

# Short chunks are joined into pieces of this size, which cost less to keep and to send again.
_PIECE_BYTES = 32 * 1024

_LONGEST_SILENCE_S = 3600


KEEP_ALIVE_S = 2.0
"""While the buffer is full, because the caller is slow with events, an empty message this often keeps the
server from ending the stream as idle."""


class ReplayBuffer:
    """Keeps the audio that a resumed call must send again, and tracks what the current call has sent.

    The buffer has capacity until it holds more than `keep_s` seconds of audio and silence. It then
    holds at most one piece more (256 KiB, or one silence). With `keep_s=0` it holds only audio that
    has not been sent, and has capacity once all of that is sent.

    Positions are bytes in the stream's encoding since the start of its audio, silence included. The
    buffer has no locks and never waits; its users do both.
    """

    def __init__(
        self, audio_format: AudioFormat, *, start_s: float, keep_s: float, gate: SourceGate | None = None
    ) -> None:
        self._format = audio_format
        self._gate = gate
        self._limit = audio_format.byte_offset(keep_s)
        self._sent: deque[bytearray | int] = deque()
        self._unsent: deque[bytearray | int] = deque()
        # Start of the kept audio, next byte to send, end of the audio appended so far.
        self._start = self._next = self._end = audio_format.byte_offset(start_s)
        self.recent: RecentAudio | None = None
        """Where to keep audio for clips too, if anywhere: that of the source, before the gate."""
        self._not_in_recent: list[Piece] = []
        self.source_ended = False
        """Whether the source has no more audio."""
        self.source_error: BaseException | None = None
        """The exception that ended the source, if any."""

    @property
    def kept_s(self) -> float:
        """Length of the kept audio in seconds."""
        return self._format.seconds(self._end - self._start)

    @property
    def end_s(self) -> float:
        """End of the audio appended so far, in seconds from the start of the stream's audio."""
        return self._format.seconds(self._end)

    @property
    def sent_s(self) -> float:
        """End of the audio that the current call has sent, in seconds from the start of the stream."""
        return self._format.seconds(self._next)

    @property
    def all_sent(self) -> bool:
        """Whether the current call has sent everything that was appended."""
        return not self._unsent

    @property
    def has_capacity(self) -> bool:
        """Whether more audio may be appended."""
        return self._end - self._start <= self._limit

    def pieces(self, chunk: Chunk) -> Iterator[Piece]:
        """Split a chunk into pieces that fit into one message to any server.

        Raises InvalidRequestError for a chunk that cannot be sent.
        """
        if not isinstance(chunk, Silence):
            for message in pcm_messages(chunk, self._format):
                self._keep(message)
                yield from (message,) if self._gate is None else self._gate.process(message)
        elif is_number(chunk.seconds) and 0 <= chunk.seconds <= _LONGEST_SILENCE_S:
            if self._gate is not None:
                yield from self._gate.flush()
            # In whole samples, as the server counts it, so that a replay can start within it.
            silence = self._format.byte_offset(chunk.seconds)
            self._keep(silence)
            yield silence
        else:
            raise InvalidRequestError(
                f"a silence must be 0 to {_LONGEST_SILENCE_S} s long, not {chunk.seconds!r}",
                reason="BAD_AUDIO",
            )

    def _keep(self, piece: Piece) -> None:
        """Keep what the source yielded for clips: `append`, which has the caller's lock, moves it there."""
        if self.recent is not None:
            self._not_in_recent.append(piece)

    def append(self, piece: Piece) -> None:
        """Append the next piece of the source."""
        if piece_bytes(piece):
            self._end += piece_bytes(piece)
            _append(self._unsent, piece)
        if self.recent is not None:
            for kept in self._not_in_recent:
                self.recent.append(kept)
            self._not_in_recent.clear()

    def end(self, error: BaseException | None = None) -> None:
        """Mark the source as ended, by an exception if one is given."""
        if self._gate is not None:
            for piece in self._gate.flush():
                self.append(piece)
        self.source_ended, self.source_error = True, error

    def next_message(self) -> bytes | Silence | None:
        """Return the next audio that the current call must send, None if there is none yet."""
        if not self._unsent:
            return None
        piece = self._unsent.popleft()
        self._next += piece_bytes(piece)
        message = Silence(self._format.seconds(piece)) if isinstance(piece, int) else bytes(piece)
        if self._limit:
            _append(self._sent, piece)
        else:
            self._start = self._next
        return message

    def discard_before(self, replay_s: float) -> None:
        """Discard the audio before a Progress' `replay_s`.

        Raises IncompatibleServerError if that lies outside the audio that is both kept and sent.
        """
        position = self._format.byte_offset(replay_s)
        if not self._start <= position <= self._next:
            raise IncompatibleServerError(
                f"the server wants to resume from {replay_s:g} s, but the client keeps, and has sent, "
                f"{self._format.seconds(self._start):g} s to {self._format.seconds(self._next):g} s of the "
                "audio: start a new stream"
            )
        while self._start < position:
            ahead, first = position - self._start, self._sent[0]
            if piece_bytes(first) <= ahead:
                self._start += piece_bytes(self._sent.popleft())
                continue
            if isinstance(first, int):
                self._sent[0] = first - ahead
            else:
                del first[:ahead]
            self._start = position

    def rewind(self) -> None:
        """Start a new call, which must send all kept audio again."""
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._next = self._start


def _append(pieces: deque[bytearray | int], piece: Piece) -> None:
    """Append a piece, joined with the last one where both are short."""
    if isinstance(piece, int):
        pieces.append(piece)
        return
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray) and len(last) + len(piece) <= _PIECE_BYTES:
        last += piece
    else:
        pieces.append(piece if isinstance(piece, bytearray) else bytearray(piece))
