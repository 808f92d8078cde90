"""The replay buffer: which audio it keeps, and which audio it sends again."""

from __future__ import annotations

import pytest
from earmark_client import IncompatibleServerError, Silence
from earmark_client.audio import AudioFormat
from earmark_client.replay_buffer import ReplayBuffer
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

RATE_HZ = 10
KEEP_S = 3
FRAME_BYTES = 4  # two channels of 16 bits


def _buffer(keep_s: float = KEEP_S, start_s: float = 0.0) -> ReplayBuffer:
    return ReplayBuffer(AudioFormat(RATE_HZ, channels=2), start_s=start_s, keep_s=keep_s)


class Replays(RuleBasedStateMachine):
    """Compares the buffer with all bytes of the stream, in which a silence is zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = _buffer(start_s=7.0)
        self.start = self.next = 7 * RATE_HZ * FRAME_BYTES
        self.audio = bytearray(self.start)
        self.longest_piece = 0
        self.count = 0

    def _append(self, chunk: bytes | Silence, length: bytes) -> None:
        if not self.buffer.has_capacity:
            return
        for piece in self.buffer.pieces(chunk):
            self.buffer.append(piece)
        self.audio += length
        self.longest_piece = max(self.longest_piece, len(length))

    @rule(length=st.integers(0, 200))
    def append_audio(self, length: int) -> None:
        # Never zero, which would be silence.
        self.count += 1
        data = bytes(1 + (self.count + i) % 255 for i in range(length))
        self._append(data, data)

    @rule(samples=st.integers(0, 60))
    def append_silence(self, samples: int) -> None:
        if len(self.audio) % FRAME_BYTES:  # a silence must not split a sample
            self.append_audio(FRAME_BYTES - len(self.audio) % FRAME_BYTES)
        self._append(Silence(samples / RATE_HZ), bytes(samples * FRAME_BYTES))

    @rule(pieces=st.integers(1, 5))
    def send(self, pieces: int) -> None:
        for _ in range(pieces):
            self._send()

    def _send(self) -> None:
        sent = self.buffer.next_message()
        if sent is None:
            assert self.next == len(self.audio)
            return
        if isinstance(sent, Silence):
            sent = bytes(round(sent.seconds * RATE_HZ) * FRAME_BYTES)
            assert sent
        assert sent == self.audio[self.next : self.next + len(sent)]
        self.next += len(sent)

    @rule(part=st.floats(0, 1))
    def discard(self, part: float) -> None:
        frames = round(part * ((self.next - self.start) // FRAME_BYTES))
        self.start += frames * FRAME_BYTES
        self.buffer.discard_before(self.start / FRAME_BYTES / RATE_HZ)

    @rule(sends_all=st.booleans())
    def break_and_begin_a_new_call(self, sends_all: bool) -> None:
        self.buffer.rewind()
        self.next = self.start
        while sends_all and not self.buffer.all_sent:
            self._send()

    @rule(frames=st.integers(1, 1000), early=st.booleans())
    def reject_positions_outside(self, frames: int, early: bool) -> None:
        position = self.start - frames * FRAME_BYTES if early else self.next + frames * FRAME_BYTES
        with pytest.raises(IncompatibleServerError, match="the client keeps, and has sent"):
            self.buffer.discard_before(position / FRAME_BYTES / RATE_HZ)

    @invariant()
    def kept_audio_is_complete_and_bounded(self) -> None:
        kept = len(self.audio) - self.start
        assert self.buffer.kept_s == pytest.approx(kept / FRAME_BYTES / RATE_HZ)
        assert kept <= KEEP_S * RATE_HZ * FRAME_BYTES + self.longest_piece
        assert self.buffer.all_sent == (self.next == len(self.audio))


TestReplays = Replays.TestCase
TestReplays.settings = settings(max_examples=150, stateful_step_count=40)


def test_a_buffer_that_keeps_nothing_has_capacity_once_all_is_sent() -> None:
    buffer = _buffer(keep_s=0)
    buffer.append(b"1234")
    assert not buffer.has_capacity
    assert buffer.next_message() == b"1234"
    assert (buffer.has_capacity, buffer.kept_s) == (True, 0.0)
    buffer.rewind()
    assert buffer.next_message() is None


def test_short_chunks_are_replayed_in_long_pieces() -> None:
    buffer = ReplayBuffer(AudioFormat(16_000), start_s=0, keep_s=60)
    data = bytes(range(250)) * 200
    for i in range(0, len(data), 20):
        buffer.append(data[i : i + 20])
        assert buffer.next_message() == data[i : i + 20]
    buffer.rewind()
    pieces = [buffer.next_message(), buffer.next_message()]
    assert b"".join(pieces) == data  # type: ignore[arg-type]
    assert buffer.next_message() is None
