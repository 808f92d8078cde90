from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr
from earmark_spotter import AudioDecoder, AudioError, AudioFormat, Encoding, EncodingError, SampleRateError
from earmark_spotter.audio import alaw_table, mulaw_table
from hypothesis import given
from hypothesis import strategies as st

RATES = (8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000)

formats = st.builds(
    AudioFormat,
    encoding=st.sampled_from(Encoding),
    sample_rate_hz=st.sampled_from(RATES),
    channel_count=st.integers(1, 8),
)


def noise_bytes(audio_format: AudioFormat, frames: int, seed: int = 0) -> bytes:
    """Return noise in the given format, `frames` samples per channel."""
    rng = np.random.default_rng(seed)
    shape = (frames, audio_format.channel_count)
    if audio_format.encoding is Encoding.LINEAR16:
        return rng.integers(-32768, 32768, shape).astype("<i2").tobytes()
    if audio_format.encoding is Encoding.FLOAT32:
        return rng.uniform(-1, 1, shape).astype("<f4").tobytes()
    return rng.integers(0, 256, shape).astype(np.uint8).tobytes()


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Split bytes into chunks of the given sizes, cycled; at least one size is not zero."""
    pieces, start, i = [], 0, 0
    while start < len(data):
        size = sizes[i % len(sizes)]
        pieces.append(data[start : start + size])
        start, i = start + size, i + 1
    return pieces


cuts = st.lists(st.integers(0, 5000), min_size=1, max_size=8).filter(any)
fine_cuts = st.lists(st.integers(0, 7), min_size=1, max_size=8).filter(any)


@given(audio_format=formats, sizes=cuts | fine_cuts, frames=st.integers(0, 2000))
def test_decoding_does_not_depend_on_the_chunks(
    audio_format: AudioFormat, sizes: list[int], frames: int
) -> None:
    data = noise_bytes(audio_format, frames)
    whole = AudioDecoder(audio_format, 16_000)
    expected = np.concatenate([whole.decode(data), whole.flush()])
    decoder = AudioDecoder(audio_format, 16_000)
    pieces = [decoder.decode(piece) for piece in cut(data, sizes)]
    actual = np.concatenate([*pieces, decoder.flush()])
    assert actual.dtype == np.float32
    assert actual.ndim == 1
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert decoder.received_samples == frames


@given(rate_hz=st.sampled_from(RATES), frames=st.integers(1, 30_000))
def test_streaming_resampling_equals_resampling_in_one_call(rate_hz: int, frames: int) -> None:
    audio_format = AudioFormat(Encoding.FLOAT32, rate_hz)
    data = noise_bytes(audio_format, frames)
    decoder = AudioDecoder(audio_format, 16_000)
    streamed = [decoder.decode(piece) for piece in cut(data, [rate_hz // 10 * 4])]
    at_once = soxr.resample(np.frombuffer(data, "<f4"), rate_hz, 16_000, quality="HQ")
    np.testing.assert_allclose(np.concatenate([*streamed, decoder.flush()]), at_once, atol=1e-5)


@pytest.mark.parametrize("rate_hz", RATES)
def test_a_tone_keeps_its_pitch_and_loudness(rate_hz: int) -> None:
    time = np.arange(rate_hz) / rate_hz
    decoder = AudioDecoder(AudioFormat(Encoding.FLOAT32, rate_hz), 16_000)
    tone = np.sin(2 * np.pi * 1000 * time).astype("<f4")
    out = np.concatenate([decoder.decode(tone.tobytes()), decoder.flush()])
    assert abs(len(out) - 16_000) <= 1
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(out)) / 16_000)
    np.testing.assert_allclose(out[1000:-1000], expected[1000:-1000], atol=1e-3)


def test_linear16_is_scaled_to_full_scale_one() -> None:
    decoder = AudioDecoder(AudioFormat(Encoding.LINEAR16, 16_000), 16_000)
    samples = np.array([0, 1, -1, 32767, -32768], "<i2")
    np.testing.assert_array_equal(decoder.decode(samples.tobytes()), samples / 32768)


def test_float32_passes_through_without_a_copy() -> None:
    data = np.linspace(-1, 1, 100, dtype="<f4").tobytes()
    out = AudioDecoder(AudioFormat(Encoding.FLOAT32, 16_000), 16_000).decode(data)
    assert np.shares_memory(out, np.frombuffer(data, "<f4"))


@pytest.mark.parametrize(("encoding", "subtype"), [(Encoding.MULAW, "ULAW"), (Encoding.ALAW, "ALAW")])
def test_g711_decodes_as_libsndfile_does(encoding: Encoding, subtype: str) -> None:
    every_byte = bytes(range(256))
    decoded = AudioDecoder(AudioFormat(encoding, 16_000), 16_000).decode(every_byte)
    expected, _ = soundfile.read(
        io.BytesIO(every_byte), dtype="float32", format="RAW", subtype=subtype, samplerate=16_000, channels=1
    )
    np.testing.assert_array_equal(decoded, expected)


def test_g711_extremes_match_the_recommendation() -> None:
    assert mulaw_table()[0x00] * 32768 == -32124
    assert mulaw_table()[0x80] * 32768 == 32124
    assert mulaw_table()[0xFF] == mulaw_table()[0x7F] == 0
    assert alaw_table()[0xAA] * 32768 == 32256
    assert alaw_table()[0x2A] * 32768 == -32256
    assert alaw_table()[0xD5] * 32768 == 8


@given(audio_format=formats, frames=st.integers(1, 500))
def test_channels_are_mixed_by_their_mean(audio_format: AudioFormat, frames: int) -> None:
    data = noise_bytes(audio_format, frames)
    single = AudioFormat(audio_format.encoding, 16_000)
    interleaved = AudioDecoder(single, 16_000).decode(data).reshape(-1, audio_format.channel_count)
    mixed = AudioDecoder(
        AudioFormat(audio_format.encoding, 16_000, audio_format.channel_count), 16_000
    ).decode(data)
    np.testing.assert_allclose(mixed, interleaved.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("channel_count", range(2, 9))
def test_channels_are_mixed_exactly_the_same_for_all_chunks(channel_count: int) -> None:
    audio_format = AudioFormat(Encoding.FLOAT32, 16_000, channel_count)
    data = noise_bytes(audio_format, 5000)
    decoder = AudioDecoder(audio_format, 16_000)
    pieces = [decoder.decode(piece) for piece in cut(data, [37, 4096, 4 * channel_count])]
    np.testing.assert_array_equal(np.concatenate(pieces), AudioDecoder(audio_format, 16_000).decode(data))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 32767.0, -1e30])
@pytest.mark.parametrize("rate_hz", [16_000, 48_000])
def test_float_samples_that_are_not_audio_are_rejected(bad: float, rate_hz: int) -> None:
    samples = np.zeros(100, "<f4")
    samples[37] = bad
    with pytest.raises(AudioError, match="full scale"):
        AudioDecoder(AudioFormat(Encoding.FLOAT32, rate_hz), 16_000).decode(samples.tobytes())


def test_float_samples_slightly_beyond_full_scale_are_accepted() -> None:
    samples = np.array([1.5, -2.0], "<f4")
    out = AudioDecoder(AudioFormat(Encoding.FLOAT32, 16_000), 16_000).decode(samples.tobytes())
    np.testing.assert_array_equal(out, samples)


@given(audio_format=formats, data=st.data())
def test_a_stream_that_ends_inside_a_sample_is_rejected(
    audio_format: AudioFormat, data: st.DataObject
) -> None:
    if audio_format.frame_bytes == 1:
        return
    extra = data.draw(st.integers(1, audio_format.frame_bytes - 1))
    decoder = AudioDecoder(audio_format, 16_000)
    decoder.decode(noise_bytes(audio_format, 10) + bytes(extra))
    with pytest.raises(AudioError, match="The audio ends inside a sample"):
        decoder.flush()
    with pytest.raises(AudioError, match="A silence begins inside a sample"):
        decoder.silence(10)
    decoder.decode(bytes(audio_format.frame_bytes - extra))
    decoder.silence(10)
    assert decoder.received_samples == 21


@pytest.mark.parametrize("rate_hz", RATES)
def test_silence_equals_zero_samples(rate_hz: int) -> None:
    audio_format = AudioFormat(Encoding.LINEAR16, rate_hz)
    data = noise_bytes(audio_format, 1000)
    pushed, sent = AudioDecoder(audio_format, 16_000), AudioDecoder(audio_format, 16_000)
    by_message = [pushed.decode(data), pushed.silence(rate_hz), pushed.decode(data), pushed.flush()]
    by_bytes = [sent.decode(data), sent.decode(bytes(2 * rate_hz)), sent.decode(data), sent.flush()]
    np.testing.assert_array_equal(np.concatenate(by_message), np.concatenate(by_bytes))
    assert pushed.received_samples == sent.received_samples


@pytest.mark.parametrize("rate_hz", [-1, 0, 1, 7999, 192_001, 2**31])
def test_a_sample_rate_out_of_range_is_rejected(rate_hz: int) -> None:
    with pytest.raises(SampleRateError, match=f"{rate_hz} Hz"):
        AudioFormat(Encoding.LINEAR16, rate_hz)


@pytest.mark.parametrize("channel_count", [-1, 0, 9])
def test_a_channel_count_out_of_range_is_rejected(channel_count: int) -> None:
    with pytest.raises(AudioError, match=f"{channel_count} channels"):
        AudioFormat(Encoding.LINEAR16, 16_000, channel_count)


def test_an_encoding_of_another_type_is_rejected() -> None:
    with pytest.raises(EncodingError, match="LINEAR16"):
        AudioFormat("flac", 16_000)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(10, 1), (10,), (10, 3), (2, 10, 2)])
def test_samples_must_have_the_channels_of_the_format(shape: tuple[int, ...]) -> None:
    decoder = AudioDecoder(AudioFormat(Encoding.LINEAR16, 16_000, 2), 16_000)
    with pytest.raises(AudioError, match="channel"):
        decoder.accept(np.zeros(shape, np.float32))
    assert decoder.accept(np.zeros((10, 2), np.float32)).shape == (10,)


def test_samples_must_be_float32() -> None:
    decoder = AudioDecoder(AudioFormat(Encoding.LINEAR16, 16_000), 16_000)
    with pytest.raises(AudioError, match="int16"):
        decoder.accept(np.zeros(10, np.int16))  # type: ignore[arg-type]
