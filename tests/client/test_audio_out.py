"""What the client makes of the audio that it is given."""

from __future__ import annotations

import numpy as np
import pytest
from earmark_client import Encoding, InvalidRequestError, Silence
from earmark_client.audio import pcm_bytes
from earmark_client.messages import chunk_requests
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(-32768, 32767)))
def test_16_bit_samples_as_floats_go_out_bit_for_bit(values: list[int]) -> None:
    integers = np.array(values, dtype=np.int16)
    as_floats = integers.astype(np.float32) / 32768
    assert pcm_bytes(as_floats, Encoding.LINEAR16) == integers.tobytes()
    assert pcm_bytes(integers, Encoding.LINEAR16) == integers.tobytes()
    assert pcm_bytes(integers, Encoding.FLOAT32) == as_floats.tobytes()


def test_floats_past_full_scale_are_clipped_not_wrapped() -> None:
    loud = np.array([1.5, -1.5, 1.0, -1.0])
    assert np.frombuffer(pcm_bytes(loud, Encoding.LINEAR16), "<i2").tolist() == [32767, -32768, 32767, -32768]


def test_channels_are_interleaved() -> None:
    stereo = np.array([[1, 2], [3, 4]], dtype=np.int16)  # [n, channels]
    assert np.frombuffer(pcm_bytes(stereo, Encoding.LINEAR16), "<i2").tolist() == [1, 2, 3, 4]


@given(st.binary(max_size=1000), st.sampled_from(list(Encoding)))
def test_bytes_go_out_as_they_are(data: bytes, encoding: Encoding) -> None:
    for kind in (bytes, bytearray, memoryview):
        assert b"".join(request.audio for request in chunk_requests(kind(data), encoding)) == data


def test_a_long_chunk_is_cut_into_messages_that_every_server_takes() -> None:
    data = bytes(range(256)) * 10_000
    requests = list(chunk_requests(data, Encoding.LINEAR16))
    assert b"".join(request.audio for request in requests) == data
    assert max(len(request.audio) for request in requests) <= 256 * 1024


def test_a_pause_is_sent_as_its_length() -> None:
    (request,) = chunk_requests(Silence(2.25), Encoding.LINEAR16)
    assert (request.silence.seconds, request.silence.nanos) == (2, 250_000_000)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e18])
def test_a_pause_of_no_length_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequestError, match="no length of time"):
        list(chunk_requests(Silence(seconds), Encoding.LINEAR16))


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
def test_what_is_no_audio_is_refused_before_it_is_sent(
    chunk: object, encoding: Encoding, reason: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        list(chunk_requests(chunk, encoding))  # type: ignore[arg-type]
    assert refused.value.reason == reason
