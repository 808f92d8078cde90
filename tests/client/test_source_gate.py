"""The gate at the source: silence in place of nearly silent audio, and everything else as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_client import Encoding, InvalidRequestError, Silence
from earmark_client.audio import AudioFormat
from earmark_client.replay_buffer import ReplayBuffer
from earmark_client.source_gate import SourceGate
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable

RATE_HZ = 16_000


def room(seconds: float, words_s: Iterable[float], *, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Return noise with bursts of 0.3 s that are much louder, int16 [n]."""
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 0.002, round(seconds * rate_hz))
    for start_s in words_s:
        start = round(start_s * rate_hz)
        samples[start : start + round(0.3 * rate_hz)] += rng.normal(0, 0.1, round(0.3 * rate_hz))
    return (samples * 32767).astype("<i2")


def sent(audio: bytes, sizes: list[int], audio_format: AudioFormat) -> tuple[bytes, int, int]:
    """Return what a server receives of the audio, silence as zeros; the bytes of audio; and the messages."""
    buffer = ReplayBuffer(audio_format, start_s=0, keep_s=0, gate=SourceGate(audio_format))
    position, i = 0, 0
    while position < len(audio):
        chunk = audio[position : position + sizes[i % len(sizes)]]
        position, i = position + len(chunk), i + 1
        for piece in buffer.pieces(chunk):
            buffer.append(piece)
    buffer.end()
    received, audio_bytes, messages = bytearray(), 0, 0
    while (message := buffer.next_message()) is not None:
        messages += 1
        if isinstance(message, Silence):
            received += bytes(audio_format.byte_offset(message.seconds))
        else:
            received += message
            audio_bytes += len(message)
    return bytes(received), audio_bytes, messages


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 50_000), min_size=1, max_size=5),
    words_s=st.lists(st.floats(0, 19), max_size=4),
    channels=st.sampled_from([1, 2]),
    encoding=st.sampled_from([Encoding.LINEAR16, Encoding.FLOAT32]),
    rate_hz=st.sampled_from([8000, 16_000, 44_100]),
)
def test_every_sample_is_sent_as_it_is_or_as_silence(
    sizes: list[int], words_s: list[float], channels: int, encoding: Encoding, rate_hz: int
) -> None:
    samples = np.repeat(room(20, words_s, rate_hz=rate_hz), channels)
    if encoding is Encoding.FLOAT32:
        samples = (samples / 32768).astype("<f4")
    audio_format = AudioFormat(rate_hz, encoding, channels)
    # Small chunks are joined, so that there are not millions of them.
    sizes = [size if size > 500 else size + 500 for size in sizes]
    received, _, _ = sent(samples.tobytes(), sizes, audio_format)
    other = np.frombuffer(received, samples.dtype)
    assert len(other) == len(samples)
    same = other == samples
    assert (same | (other == 0)).all()
    for start_s in words_s:
        # The word, and 0.4 s before it.
        word = slice(max(0, round((start_s - 0.4) * rate_hz)), round((start_s + 0.3) * rate_hz))
        assert same[word.start * channels : word.stop * channels].all()


@pytest.mark.parametrize("size", [3201, 40_000, 10_000_000])
def test_what_is_sent_does_not_depend_on_the_chunks(size: int) -> None:
    audio = room(20, [1.0, 8.0, 9.5]).tobytes()
    expected, audio_bytes, _ = sent(audio, [1280], AudioFormat(RATE_HZ))
    assert audio_bytes < len(audio) / 2
    assert sent(audio, [size], AudioFormat(RATE_HZ))[:2] == (expected, audio_bytes)


def test_a_quiet_room_costs_one_short_message_a_second() -> None:
    audio = room(60, [10.0, 40.0]).tobytes()
    received, audio_bytes, messages = sent(audio, [3200], AudioFormat(RATE_HZ))
    assert len(received) == len(audio)
    assert audio_bytes < len(audio) / 8
    assert messages < 60 + 10 * 8


def test_an_open_gate_sends_audio_at_once() -> None:
    gate = SourceGate(AudioFormat(RATE_HZ))
    for chunk in np.array_split(room(1.9, []), 50):
        assert list(gate.process(chunk.tobytes())) == [chunk.tobytes()]


def test_a_silence_of_the_source_comes_after_the_audio_before_it() -> None:
    audio_format = AudioFormat(RATE_HZ)
    buffer = ReplayBuffer(audio_format, start_s=0, keep_s=0, gate=SourceGate(audio_format))
    audio = room(10, []).tobytes()
    for chunk in (audio, Silence(3.0), audio[:32_000]):
        for piece in buffer.pieces(chunk):
            buffer.append(piece)
    buffer.end()
    assert buffer.end_s == pytest.approx(14)


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW])
def test_an_encoding_that_cannot_be_measured_is_rejected(encoding: Encoding) -> None:
    with pytest.raises(InvalidRequestError, match="a gate needs linear16 or float32 audio"):
        SourceGate(AudioFormat(8000, encoding))
