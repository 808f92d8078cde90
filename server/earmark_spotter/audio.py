"""Audio formats of streams, and decoding to float32 mono at the model's sample rate."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_audio import MAX_PEAK, channel_problem, mix_down, rate_problem, sample_problem

from earmark_spotter.errors import AudioError, EncodingError, InvalidSamplesError, SampleRateError
from earmark_spotter.resampler import Resampler, is_silent, materialize

if TYPE_CHECKING:
    from earmark_spotter.model import Float32Array
    from earmark_spotter.resampler import AudioPiece

_INT16_SCALE = np.float32(1 / 32768)


class Encoding(enum.Enum):
    """The encoding of samples as bytes; channels are interleaved."""

    LINEAR16 = "linear16"
    """Signed 16-bit little-endian integers."""
    FLOAT32 = "float32"
    """IEEE 754 32-bit little-endian floats, full scale at -1 and 1."""
    MULAW = "mulaw"
    """8-bit mu-law of ITU-T G.711."""
    ALAW = "alaw"
    """8-bit A-law of ITU-T G.711."""

    @property
    def sample_bytes(self) -> int:
        """Bytes per sample of one channel."""
        return _SAMPLE_BYTES[self]


_SAMPLE_BYTES = {Encoding.LINEAR16: 2, Encoding.FLOAT32: 4, Encoding.MULAW: 1, Encoding.ALAW: 1}


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The format of a stream's audio, validated on construction.

    `sample_rate_hz`: samples per second and channel, 8,000 to 192,000 (SampleRateError).
    `channel_count`: 1 to 8, mixed down to one by their mean (AudioError).
    `channel`: the only channel to process, 1 for the first, instead of the mean (AudioError).
    `encoding`: a member of Encoding (EncodingError).
    """

    encoding: Encoding
    sample_rate_hz: int
    channel_count: int = 1
    channel: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.encoding, Encoding):
            raise EncodingError(
                f"The encoding {self.encoding!r} is not supported for streams. "
                f"Use one of {', '.join(encoding.name for encoding in Encoding)}."
            )
        check_sample_rate(self.sample_rate_hz)
        check_channel_count(self.channel_count)
        if self.channel is not None and not 1 <= self.channel <= self.channel_count:
            raise AudioError(f"There is no channel {self.channel}: the audio has {self.channel_count}.")

    @property
    def frame_bytes(self) -> int:
        """Bytes per sample of all channels together."""
        return self.encoding.sample_bytes * self.channel_count


def check_sample_rate(sample_rate_hz: int) -> None:
    """Raise SampleRateError for a sample rate outside the supported range."""
    if problem := rate_problem(sample_rate_hz):
        raise SampleRateError(problem)


def check_channel_count(channel_count: int) -> None:
    """Raise AudioError for a number of channels outside the supported range."""
    if problem := channel_problem(channel_count):
        raise AudioError(problem)


def check_samples(samples: Float32Array) -> None:
    """Raise AudioError for samples that are not finite, or far beyond full scale."""
    if problem := sample_problem(samples):
        raise AudioError(problem)


class AudioDecoder:
    """Decodes a stream's bytes, in chunks of any length, to float32 mono at the model's rate.

    A sample may be split between two chunks: its first bytes are kept for the next call. The
    output does not depend on the chunk lengths.

    `decode` is `parse`, which decodes at the input's rate, followed by `resample`.
    """

    def __init__(self, audio_format: AudioFormat, target_rate_hz: int) -> None:
        """Decode audio of the given format to float32 mono at `target_rate_hz`."""
        self.audio_format = audio_format
        self.received_samples = 0
        """Samples per channel received so far, at the input's rate, including silence."""
        self._frame_bytes = audio_format.frame_bytes
        self._rest = b""
        rate_hz = audio_format.sample_rate_hz
        self._resampler = None if rate_hz == target_rate_hz else Resampler(rate_hz, target_rate_hz)

    def decode(self, data: bytes) -> Float32Array:
        """Decode bytes of any length to samples at the target rate, [n].

        With resampling, the output lags behind the input by up to about 0.1 s; `flush`
        returns the rest. Raises AudioError for float samples that are not finite.
        """
        return self.resample(self.parse(data))

    def silence(self, sample_count: int) -> Float32Array:
        """Process `sample_count` samples, at the input's rate, of digital silence.

        Raises AudioError while a sample is split.
        """
        return materialize(self.resample_silence(sample_count))

    def flush(self) -> Float32Array:
        """End the stream; return the samples that are left in the resampler, [n].

        Raises AudioError if the stream ends inside a sample.
        """
        return materialize(self.flush_pieces())

    def parse(self, data: bytes) -> Float32Array:
        """Decode bytes to float32 mono at the input's own rate, [n], and count them as received.

        Raises InvalidSamplesError for float samples that are not audio; those before them are counted.
        """
        if self._rest:
            data = self._rest + data
        split = len(data) % self._frame_bytes
        if split:
            self._rest = data[-split:]
            data = data[:-split]
        else:
            self._rest = b""
        samples = interleaved_samples(data, self.audio_format)
        problem = None
        if self.audio_format.encoding is Encoding.FLOAT32 and sample_problem(samples):
            valid = int((np.abs(samples) <= MAX_PEAK).all(axis=1).argmin())  # fails for NaN too
            problem = sample_problem(samples[valid])
            samples = samples[:valid]
        mono = self._mono(samples)
        self.received_samples += mono.shape[0]
        if problem is not None:
            raise InvalidSamplesError(problem, mono)
        return mono

    def accept(self, samples: Float32Array) -> Float32Array:
        """Mix samples, [n] or [n, channels], down to mono [n], and count them as received.

        Raises AudioError while a sample is split, for a number of channels that is not the
        format's, and for samples that are not finite.
        """
        self.check_whole()
        shaped = samples[:, np.newaxis] if samples.ndim == 1 else samples
        if shaped.ndim != 2 or shaped.shape[1] != self.audio_format.channel_count:
            raise AudioError(
                f"Expected samples of {self.audio_format.channel_count} channel(s) with the shape [n] or "
                f"[n, channels], but got the shape {samples.shape}."
            )
        if samples.dtype != np.float32:
            raise AudioError(f"Expected float32 samples, full scale -1 to 1, but got {samples.dtype}.")
        check_samples(samples)
        self.received_samples += shaped.shape[0]
        return self._mono(shaped)

    def _mono(self, samples: Float32Array) -> Float32Array:
        """Return the channel to process, or the mean of all: [n, channels] to [n]."""
        channel = self.audio_format.channel
        return mix_down(samples) if channel is None else np.ascontiguousarray(samples[:, channel - 1])

    def resample(self, samples: Float32Array) -> Float32Array:
        """Resample mono samples from the input's rate to the target rate, [n] to [m]."""
        return materialize(self.resample_pieces(samples))

    def resample_pieces(self, samples: Float32Array) -> list[AudioPiece]:
        """Resample like `resample`, but return digital silence as a count where it is cheap to find."""
        if self._resampler is not None:
            return self._resampler.process(samples)
        if not samples.shape[0]:
            return []
        return [samples.shape[0] if is_silent(samples) else samples]

    def resample_silence(self, sample_count: int) -> list[AudioPiece]:
        """Process `sample_count` samples of digital silence at the input's rate, at a bounded cost.

        Raises AudioError while a sample is split.
        """
        self.check_whole("A silence begins")
        self.received_samples += sample_count
        if self._resampler is not None:
            return self._resampler.process_silence(sample_count)
        return [sample_count] if sample_count else []

    def flush_pieces(self) -> list[AudioPiece]:
        """End the stream like `flush`, but return digital silence as a count.

        Raises AudioError if the stream ends inside a sample.
        """
        self.check_whole()
        return [] if self._resampler is None else self._resampler.flush()

    def discard_split(self) -> None:
        """Discard the bytes of a sample that is split."""
        self._rest = b""

    def check_whole(self, event: str = "The audio ends") -> None:
        """Raise AudioError, which says that there is an `event`, if the last bytes ended inside a sample."""
        if self._rest:
            raise AudioError(
                f"{event} inside a sample: only {len(self._rest)} of {self._frame_bytes} bytes were "
                f"received ({self.audio_format.encoding.name}, {self.audio_format.channel_count} channel(s))."
            )


def interleaved_samples(data: bytes, audio_format: AudioFormat) -> Float32Array:
    """Decode whole frames to float32 samples, [n, channels], which may be invalid."""
    return _DECODERS[audio_format.encoding](data).reshape(-1, audio_format.channel_count)


def _decode_linear16(data: bytes) -> Float32Array:
    scaled: Float32Array = np.frombuffer(data, "<i2") * _INT16_SCALE
    return scaled


def _decode_float32(data: bytes) -> Float32Array:
    return np.frombuffer(data, "<f4").astype(np.float32, copy=False)


def _decode_mulaw(data: bytes) -> Float32Array:
    return mulaw_table()[np.frombuffer(data, np.uint8)]


def _decode_alaw(data: bytes) -> Float32Array:
    return alaw_table()[np.frombuffer(data, np.uint8)]


_DECODERS = {
    Encoding.LINEAR16: _decode_linear16,
    Encoding.FLOAT32: _decode_float32,
    Encoding.MULAW: _decode_mulaw,
    Encoding.ALAW: _decode_alaw,
}


@functools.cache
def mulaw_table() -> Float32Array:
    """Return the sample of each mu-law byte, [256]: ITU-T G.711 (11/1988), table 2, full scale 1.

    The byte is inverted: 1 bit sign, 3 bits segment, 4 bits position in the segment. The bias
    of 132 (in 16-bit units) makes the segments continuous.
    """
    code = ~np.arange(256) & 0xFF
    segment, place = code >> 4 & 7, code & 15
    magnitude = ((place << 3) + 132 << segment) - 132
    return _as_table(np.where(code & 0x80, -magnitude, magnitude))


@functools.cache
def alaw_table() -> Float32Array:
    """Return the sample of each A-law byte, [256]: ITU-T G.711 (11/1988), table 1, full scale 1.

    Every other bit is inverted: 1 bit sign (set for positive), 3 bits segment, 4 bits position
    in the segment. The first segment is linear.
    """
    code = np.arange(256) ^ 0x55
    segment, place = code >> 4 & 7, code & 15
    magnitude = np.where(segment == 0, (place << 4) + 8, (place << 4) + 264 << np.maximum(segment - 1, 0))
    return _as_table(np.where(code & 0x80, magnitude, -magnitude))


def _as_table(values: Any) -> Float32Array:
    table: Float32Array = values.astype(np.float32) * _INT16_SCALE
    table.flags.writeable = False
    return table
