"""Conversion of audio to the messages that are sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from earmark_client import Encoding, InvalidRequestError, Silence
from earmark_client.audio import AudioFormat, Piece, as_chunks, pcm_bytes
from earmark_client.messages import audio_request
from earmark_client.replay_buffer import ReplayBuffer
from hypothesis import given
from hypothesis import strategies as st


def _pieces(chunk: object, encoding: Encoding) -> list[Piece]:
    buffer = ReplayBuffer(AudioFormat(16_000, encoding), start_s=0, keep_s=0)
    return list(buffer.pieces(chunk))  # type: ignore[arg-type]


@given(st.lists(st.integers(-32768, 32767)))
def test_floats_that_came_from_16_bit_samples_are_converted_losslessly(values: list[int]) -> None:
    integers = np.array(values, dtype=np.int16)
    as_floats = integers.astype(np.float32) / 32768
    assert pcm_bytes(as_floats, Encoding.LINEAR16) == integers.tobytes()
    assert pcm_bytes(integers, Encoding.LINEAR16) == integers.tobytes()
    assert pcm_bytes(integers, Encoding.FLOAT32) == as_floats.tobytes()


def test_floats_beyond_full_scale_are_clipped() -> None:
    loud = np.array([1.5, -1.5, 1.0, -1.0])
    assert np.frombuffer(pcm_bytes(loud, Encoding.LINEAR16), "<i2").tolist() == [32767, -32768, 32767, -32768]


def test_channels_are_interleaved() -> None:
    stereo = np.array([[1, 2], [3, 4]], dtype=np.int16)  # [n, channels]
    assert np.frombuffer(pcm_bytes(stereo, Encoding.LINEAR16, 2), "<i2").tolist() == [1, 2, 3, 4]


@given(st.binary(max_size=1000), st.sampled_from(list(Encoding)))
def test_bytes_are_sent_unchanged(data: bytes, encoding: Encoding) -> None:
    for kind in (bytes, bytearray, memoryview):
        assert b"".join(_pieces(kind(data), encoding)) == data  # type: ignore[arg-type]


def test_a_long_chunk_is_split_into_messages() -> None:
    data = bytes(range(256)) * 10_000
    pieces = _pieces(data, Encoding.LINEAR16)
    assert b"".join(pieces) == data  # type: ignore[arg-type]
    assert max(len(piece) for piece in pieces) <= 256 * 1024  # type: ignore[arg-type]


def test_a_silence_is_sent_as_its_length() -> None:
    buffer = ReplayBuffer(AudioFormat(16_000), start_s=0, keep_s=0)
    for piece in buffer.pieces(Silence(2.25)):
        buffer.append(piece)
    request = audio_request(buffer.next_message())  # type: ignore[arg-type]
    assert (request.silence.seconds, request.silence.nanos) == (2, 250_000_000)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e18, -1.0, 3601.0])
def test_an_invalid_or_too_long_silence_is_rejected(seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="silence must be 0 to 3600 s") as rejected:
        _pieces(Silence(seconds), Encoding.LINEAR16)
    assert rejected.value.reason == "BAD_AUDIO"


@pytest.mark.parametrize(
    ("chunk", "encoding", "reason"),
    [
        (np.array([0.0, np.nan]), Encoding.LINEAR16, "BAD_AUDIO"),
        (np.array([0.0, np.inf]), Encoding.LINEAR16, "BAD_AUDIO"),
        (np.array([1, 2], dtype=np.int32), Encoding.LINEAR16, "BAD_AUDIO"),
        (np.array([0.1]), Encoding.MULAW, "UNSUPPORTED_ENCODING"),
        ("text", Encoding.LINEAR16, "BAD_AUDIO"),
        ([0.1, 0.2], Encoding.LINEAR16, "BAD_AUDIO"),
    ],
)
def test_invalid_audio_is_rejected_before_it_is_sent(chunk: object, encoding: Encoding, reason: str) -> None:
    with pytest.raises(InvalidRequestError) as rejected:
        _pieces(chunk, encoding)
    assert rejected.value.reason == reason


@pytest.mark.parametrize(
    ("shape", "channels", "remedy"),
    [
        ((2, 50), 2, "transpose"),
        ((50, 2), 1, "set `channels`"),
        ((50, 1, 2), 2, "give an array"),
        ((), 1, "give"),
    ],
)
def test_an_array_whose_shape_contradicts_the_channels_is_rejected(
    shape: tuple[int, ...], channels: int, remedy: str
) -> None:
    with pytest.raises(InvalidRequestError, match=remedy):
        pcm_bytes(np.zeros(shape, np.float32), Encoding.LINEAR16, channels)


@pytest.mark.parametrize("encoding", [Encoding.LINEAR16, Encoding.FLOAT32])
def test_floats_of_integer_scale_are_rejected(encoding: Encoding) -> None:
    with pytest.raises(InvalidRequestError, match="divide 16-bit integers by 32768"):
        pcm_bytes(np.array([0.0, 8000.0], np.float32), encoding)


def test_an_audio_format_accepts_what_is_unambiguous() -> None:
    assert AudioFormat(16000.0, "linear16", np.int64(2)) == AudioFormat(16000, Encoding.LINEAR16, 2)  # type: ignore[arg-type]
    assert AudioFormat(16000, "FLOAT32").encoding is Encoding.FLOAT32  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rate_hz", "encoding", "message"),
    [
        (16000.5, "linear16", "whole number"),
        ("fast", "linear16", "whole number"),
        (16000, "opus", "use one of"),
    ],
)
def test_an_audio_format_rejects_anything_else(rate_hz: Any, encoding: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        AudioFormat(rate_hz, encoding)


def test_one_chunk_in_place_of_an_iterable_is_a_list_of_one() -> None:
    assert as_chunks(b"ab") == [b"ab"]
    array = np.zeros(4, np.float32)
    assert as_chunks(array)[0] is array
    assert as_chunks([b"a", b"b"]) == [b"a", b"b"]
    with pytest.raises(InvalidRequestError, match=r"give Recording\('speech.flac'\)"):
        as_chunks("speech.flac")
