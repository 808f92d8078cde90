"""The audio of one stream: decoded, resampled, checked and measured once, for every model of the stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earmark_spotter.audio import AudioDecoder
from earmark_spotter.errors import AudioError, InvalidSamplesError
from earmark_spotter.level_meter import LevelMeter
from earmark_spotter.recent_audio import RecentAudio
from earmark_spotter.sample_time import NANOSECONDS, offset_ns
from earmark_spotter.stream_checks import NO_PROBLEMS, ChecksState, StreamChecks

if TYPE_CHECKING:
    from earmark_spotter.audio import AudioFormat
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array
    from earmark_spotter.resampler import AudioPiece
    from earmark_spotter.step_queue import StepQueue


@dataclass(slots=True)
class AudioReader:
    """One model's end of the audio.

    `tail_samples`: silence to append at the end, so that the last word is complete. `needed_s`: the second
    from which a resumed stream would replay now. `recent`: the newest samples, if the model has a verifier,
    which needs those from `recent_from` on. `end_step`: the step after the last one, once it is known.
    """

    queue: StepQueue
    meter: LevelMeter
    step_s: float
    tail_samples: int
    needed_s: int
    recent: RecentAudio | None
    recent_from: int = 0
    end_step: int | None = None

    def steps_in(self, seconds: float) -> int:
        """Return the whole steps in a length of audio, at least 1."""
        # The small addend keeps a whole number of steps from being rounded down by one.
        return max(1, int(seconds / self.step_s + 0.01))


@dataclass(slots=True)
class _Rate:
    """The audio at one sample rate, and the models that have this rate."""

    hz: int
    decoder: AudioDecoder
    meter: LevelMeter
    readers: list[AudioReader] = field(default_factory=list)
    recent: RecentAudio | None = None

    def extend(self, pieces: list[AudioPiece]) -> None:
        for reader in self.readers:
            reader.queue.extend(pieces)
        self.meter.extend(pieces)
        # A detection after this begins later than what a resumed stream replays.
        replayed = min(reader.needed_s for reader in self.readers) * self.hz
        self.meter.discard_before(replayed)
        if self.recent is not None:
            self.recent.extend(pieces)
            self.recent.discard_before(
                min(reader.recent_from for reader in self.readers if reader.recent is not None)
            )


class StreamAudio:
    """Reads the audio of one stream, for one model or for several. It is not thread-safe."""

    def __init__(
        self, audio_format: AudioFormat, start_s: int = 0, checks: ChecksState = NO_PROBLEMS
    ) -> None:
        """Start at a whole second of the stream; `checks`: the state of the checks there, unless it is 0."""
        self.start_s = start_s
        """Where the audio of this call begins, in seconds from the start of the stream's audio."""
        self.received_samples = 0
        """Audio received in this call, at its own rate."""
        self.replay_unit_s = 1
        """A replay starts at a multiple of this, which keeps the phase of the resampler and of all steps."""
        self.checks = StreamChecks(audio_format, start_s, checks) if start_s else StreamChecks(audio_format)
        self._rate_hz = audio_format.sample_rate_hz
        self._format = audio_format
        self._decoder = AudioDecoder(audio_format, self._rate_hz)
        self._rates: dict[int, _Rate] = {}
        self._is_finished = False

    @property
    def received_ns(self) -> int:
        """The end of the audio received, in nanoseconds from the start of the stream's audio."""
        return self.start_s * NANOSECONDS + offset_ns(self.received_samples, self._rate_hz)

    def attach(
        self, metadata: ModelMetadata, queue: StepQueue, tail_samples: int, *, keeps_samples: bool
    ) -> AudioReader:
        """Pass the audio to a queue of a model's steps; `keeps_samples`: for a verifier too."""
        hz = metadata.sample_rate_hz
        if hz not in self._rates:
            decoder = AudioDecoder(self._format, hz)
            self._rates[hz] = _Rate(hz, decoder, LevelMeter(hz, self.start_s * hz))
        rate = self._rates[hz]
        if keeps_samples and rate.recent is None:
            rate.recent = RecentAudio(self.start_s * hz)
        reader = AudioReader(
            queue, rate.meter, metadata.step_ms / 1000, tail_samples, self.start_s, rate.recent
        )
        rate.readers.append(reader)
        self.replay_unit_s = math.lcm(self.replay_unit_s, replay_unit_s(metadata))
        return reader

    def has_ready(self, seconds: float) -> bool:
        """Return whether one of the models has at least this much audio in its queue, in whole steps."""
        for rate in self._rates.values():
            for reader in rate.readers:
                if reader.queue.ready_steps >= reader.steps_in(seconds):
                    return True
        return False

    def push_audio(self, data: bytes) -> None:
        """Append bytes, split anywhere.

        Raises AudioError for invalid float samples, after it has appended those before them.
        """
        self._check_open()
        self.checks.add(data)
        try:
            self._push(self._decoder.parse(data))
        except InvalidSamplesError as error:
            self._push(error.samples)
            self.checks.cut(self.start_s * self._rate_hz + self.received_samples)
            raise
        if self.checks.has_history:
            readers = [reader for rate in self._rates.values() for reader in rate.readers]
            self.checks.forget_before(min(reader.needed_s for reader in readers))

    def push_samples(self, samples: Float32Array) -> None:
        """Append samples instead of bytes: float32 [n] or [n, channels] at the format's rate.

        Raises AudioError for a wrong number of channels, invalid samples, or while a sample is split.
        """
        self._check_open()
        self._push(self._decoder.accept(samples))

    def push_silence(self, sample_count: int) -> None:
        """Append `sample_count` samples, at the format's rate, of digital silence.

        They take no memory until they are consumed. Raises AudioError while a sample is split.
        """
        self._check_open()
        if sample_count < 0:
            raise AudioError(f"The length of a silence must not be negative, but is {sample_count} samples.")
        self._decoder.check_whole("A silence begins")
        for rate in self._rates.values():
            rate.extend(rate.decoder.resample_silence(sample_count))
        self.received_samples += sample_count
        self.checks.add_silence(sample_count)

    def finish(self, *, discard_split: bool = False) -> None:
        """End the audio, and append enough silence for each model to detect a word at its very end.

        At least one step is ready afterwards. Raises AudioError if a sample is split, unless
        `discard_split`: its bytes are discarded.
        """
        self._check_open()
        if discard_split:
            self._decoder.discard_split()
        self._decoder.check_whole()
        for rate in self._rates.values():
            rate.extend(rate.decoder.flush_pieces())
            for reader in rate.readers:
                reader.end_step = reader.queue.finish(reader.tail_samples)
        self.checks.finish()
        self._is_finished = True

    def _check_open(self) -> None:
        if self._is_finished:
            raise RuntimeError("the stream is finished: create a new one")

    def _push(self, samples: Float32Array) -> None:
        self.received_samples += samples.shape[0]
        for rate in self._rates.values():
            rate.extend(rate.decoder.resample_pieces(samples))


def replay_unit_s(metadata: ModelMetadata) -> int:
    """Return the shortest length in whole seconds that is a whole number of a model's steps."""
    return math.lcm(metadata.sample_rate_hz, metadata.step_samples) // metadata.sample_rate_hz
