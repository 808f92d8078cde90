"""A streaming resampler for mono audio that counts digital silence instead of filtering it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from earmark_spotter.model import Float32Array

# The filter looks this far ahead (measured: at most 83 ms, from 11,025 Hz). While it is at rest, its
# output ends this long before the end of the input, because audio that follows could still change it.
_MARGIN_S = 0.1

AudioPiece: TypeAlias = "Float32Array | int"
"""Consecutive mono samples [n], or the number of samples of digital silence."""


def is_silent(samples: Float32Array) -> bool:
    """Return whether all samples are zero; fast for audio that is not."""
    return bool(samples[-1] == 0 and samples[0] == 0 and not samples.any())


def materialize(pieces: list[AudioPiece]) -> Float32Array:
    """Return pieces as one array, [n]."""
    arrays = [np.zeros(piece, np.float32) if isinstance(piece, int) else piece for piece in pieces]
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


class Resampler:
    """Resamples one stream to another rate, in chunks of any length.

    After a whole second of digital silence, counted from the start of the stream, the filter contains
    nothing but zeros. It is then discarded, and a new one starts with the next audio. So silence costs
    nothing, and the output depends on the input alone: on neither its chunks nor whether silence arrives
    as zeros or as a count.
    """

    def __init__(self, input_rate_hz: int, output_rate_hz: int) -> None:
        self._input_rate_hz = input_rate_hz
        self._output_rate_hz = output_rate_hz
        self._margin = round(input_rate_hz * _MARGIN_S)
        self._filter: Any = None  # None while the filter is at rest
        self._second = 0  # input samples in the current second
        self._second_is_silent = True
        # At rest: output for the current second so far, which a new filter would repeat.
        self._emitted = 0
        self._repeated = 0  # output of the filter that was emitted before it started

    def process(self, samples: Float32Array) -> list[AudioPiece]:
        """Resample the next samples, [n]; return the output that is determined by now."""
        output: list[AudioPiece] = []
        while samples.shape[0]:
            part = samples[: self._input_rate_hz - self._second]
            samples = samples[part.shape[0] :]
            if is_silent(part):
                self._process_silence(part.shape[0], output)
                continue
            if self._filter is None:
                self._start_filter(output)
            self._second_is_silent = False
            self._second += part.shape[0]
            self._emit(self._filter.resample_chunk(part), output)
            self._end_second(output)
        return output

    def process_silence(self, sample_count: int) -> list[AudioPiece]:
        """Resample `sample_count` zeros, at a cost that does not grow with their number."""
        output: list[AudioPiece] = []
        self._process_silence(sample_count, output)
        return output

    def flush(self) -> list[AudioPiece]:
        """End the stream; return the rest of the output."""
        output: list[AudioPiece] = []
        if self._filter is None:
            if not self._second:
                return output
            self._start_filter(output)
        self._emit(self._filter.resample_chunk(np.zeros(0, np.float32), last=True), output)
        return output

    def _process_silence(self, count: int, output: list[AudioPiece]) -> None:
        while count:
            part = min(count, self._input_rate_hz - self._second)
            if self._filter is None:
                if not self._second:
                    seconds = count // self._input_rate_hz
                    _append_silence(output, seconds * self._output_rate_hz)
                    count -= seconds * self._input_rate_hz
                    part = count
                self._second += part
                determined = max(0, self._second - self._margin) * self._output_rate_hz // self._input_rate_hz
                _append_silence(output, determined - self._emitted)
                self._emitted = max(self._emitted, determined)
            else:
                self._second += part
                self._emit(self._filter.resample_chunk(np.zeros(part, np.float32)), output)
            count -= part
            self._end_second(output)

    def _start_filter(self, output: list[AudioPiece]) -> None:
        import soxr

        self._filter = soxr.ResampleStream(
            self._input_rate_hz, self._output_rate_hz, 1, dtype="float32", quality="HQ"
        )
        self._repeated, self._emitted = self._emitted, 0
        if self._second:
            self._emit(self._filter.resample_chunk(np.zeros(self._second, np.float32)), output)

    def _emit(self, resampled: Float32Array, output: list[AudioPiece]) -> None:
        if self._repeated:
            repeated = min(self._repeated, resampled.shape[0])
            self._repeated -= repeated
            resampled = resampled[repeated:]
        if resampled.shape[0]:
            output.append(resampled.shape[0] if is_silent(resampled) else resampled)

    def _end_second(self, output: list[AudioPiece]) -> None:
        if self._second < self._input_rate_hz:
            return
        self._second = 0
        if self._filter is None:
            _append_silence(output, self._output_rate_hz - self._emitted)
            self._emitted = 0
        elif self._second_is_silent:
            self._emit(self._filter.resample_chunk(np.zeros(0, np.float32), last=True), output)
            self._filter = None
        self._second_is_silent = True


def _append_silence(output: list[AudioPiece], count: int) -> None:
    if count > 0:
        output.append(count)
