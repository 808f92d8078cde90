"""Checks of a stream's audio: recordings or text in place of samples, another format, clipping, silence.

All checks are at fixed positions of the audio, so that they depend neither on the lengths of the chunks nor
on whether the stream was resumed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import MAX_PEAK, Notice, channels_cancel, identify, identify_binary

from earmark_spotter.audio import Encoding, interleaved_samples
from earmark_spotter.format_check import other_format

if TYPE_CHECKING:
    from earmark_spotter.audio import AudioFormat

_HEAD_BYTES = 4096
"""The beginning of a stream, which shows whether it is a recording or text."""

_MIN_HEAD_BYTES = 64

_TEXT_PEAK = 0.03
"""A text that is read as samples of 8 bits is louder. Quiet samples may be the bytes of letters."""

_WINDOW_FRAMES = 4096
"""Part of a second, from its beginning, that is checked."""

_MIN_WINDOW_FRAMES = 1024
"""The shortest part that is checked at the end of a stream."""

_CHECKED_S = 10
"""Seconds that are checked, from the first one that is not silent."""

_SILENCE_S = 60
_QUIETEST_PEAK = 1e-3
_FULL_SCALE = 0.999
_CLIPPED_SHARE = 0.25

NOT_RAW_SAMPLES = "NOT_RAW_SAMPLES"
OTHER_FORMAT = "OTHER_FORMAT"
CHANNELS_CANCEL = "CHANNELS_CANCEL"
CLIPPED = "CLIPPED"
DIGITAL_SILENCE = "DIGITAL_SILENCE"
REASONS = (NOT_RAW_SAMPLES, OTHER_FORMAT, CLIPPED, CHANNELS_CANCEL, DIGITAL_SILENCE)
"""Each reason is found at most once in a stream."""

# Samples of no sound, as bytes.
_SILENT_BYTES = {
    Encoding.LINEAR16: b"\x00",
    Encoding.FLOAT32: b"\x00",
    Encoding.MULAW: b"\x7f\xff",
    Encoding.ALAW: b"\x55\xd5",
}


@dataclass(frozen=True, slots=True)
class ChecksState:
    """The state of the checks at the beginning of a second.

    `first_sound_s`: the first second that is not silent; None if there was none. `silent_bytes`: digital
    silence that precedes. `reasons`: the problems that were found.
    """

    first_sound_s: int | None = 0
    silent_bytes: int = 0
    reasons: tuple[str, ...] = ()

    def is_possible_at(self, second: int, audio_format: AudioFormat) -> bool:
        """Return whether the checks of a stream can be in this state at the beginning of a second."""
        second_bytes = audio_format.sample_rate_hz * audio_format.frame_bytes
        return (self.first_sound_s or 0) <= second and self.silent_bytes < _SILENCE_S * second_bytes


NO_PROBLEMS = ChecksState()
"""The state of most streams after their beginning."""

_AT_START = ChecksState(first_sound_s=None)


class StreamChecks:
    """Checks the bytes of one stream. Positions are samples at the stream's rate, from its start."""

    def __init__(self, audio_format: AudioFormat, start_s: int = 0, state: ChecksState = _AT_START) -> None:
        """Start at a whole second of the stream; `state`: that of the audio before."""
        self.found: deque[tuple[int, Notice]] = deque()
        """The positions and notices of the problems that were found. The caller removes them."""
        self._format = audio_format
        self._second_bytes = audio_format.sample_rate_hz * audio_format.frame_bytes
        self._window_bytes = min(audio_format.sample_rate_hz, _WINDOW_FRAMES) * audio_format.frame_bytes
        self._silent = _SILENT_BYTES[audio_format.encoding]
        self._position = start_s * self._second_bytes  # in bytes, silence included
        self._head: bytearray | None = bytearray() if start_s == 0 else None
        self._window = bytearray()
        self._state = state
        self._silent_bytes = state.silent_bytes
        # The state at the beginning of seconds; each is valid until the next.
        self._states: deque[tuple[int, ChecksState]] = deque([(start_s, state)])

    def add(self, data: bytes) -> None:
        """Check the next bytes, split anywhere."""
        if self._head is not None:
            self._add_to_head(data)
        while data:
            in_second = self._position % self._second_bytes
            in_window = in_second == len(self._window) and in_second < self._window_bytes and self._is_open
            length = (self._window_bytes if in_window else self._second_bytes) - in_second
            part, data = data[:length], data[length:]
            self._count_silence(part)
            self._position += len(part)
            if in_window:
                self._window += part
                if len(self._window) == self._window_bytes:
                    self._check_window()
            if self._position % self._second_bytes == 0:
                self._end_second()

    def add_silence(self, sample_count: int) -> None:
        """Count silence that the client declared. It is no sign of a problem."""
        self._position += sample_count * self._format.frame_bytes
        self._end_second()

    def cut(self, position: int) -> None:
        """Discard the notices of invalid samples, from `position` on, but keep that of their cause."""
        self.found = deque(
            (min(at, position + 1), notice)
            for at, notice in self.found
            if at <= position or notice.reason == NOT_RAW_SAMPLES
        )
        self._window.clear()

    def finish(self) -> None:
        """Check the rest of the audio at its end. The positions of its notices lie after it."""
        self._position += self._format.frame_bytes
        if self._head is not None:
            self._check_head()
        if len(self._window) >= _MIN_WINDOW_FRAMES * self._format.frame_bytes:
            self._check_window()

    def state_at(self, second: int) -> ChecksState:
        """Return the state at the beginning of a second."""
        return next(
            (state for start_s, state in reversed(self._states) if start_s <= second), self._states[0][1]
        )

    def forget_before(self, second: int) -> None:
        """Forget the states that are not needed for `state_at` from this second on."""
        states = self._states
        while len(states) > 1 and states[1][0] <= second:
            states.popleft()

    @property
    def has_history(self) -> bool:
        """Whether there are states of several seconds."""
        return len(self._states) > 1

    @property
    def _is_open(self) -> bool:
        first_s = self._state.first_sound_s
        return first_s is None or self._position < (first_s + _CHECKED_S) * self._second_bytes

    def _end_second(self) -> None:
        self._window.clear()
        second = -(-self._position // self._second_bytes)
        state = ChecksState(self._state.first_sound_s, self._silent_bytes, self._state.reasons)
        if state != self._states[-1][1]:
            self._states.append((second, state))

    def _report(self, reason: str, message: str, position_bytes: int) -> None:
        state = self._state
        if reason not in state.reasons:
            self._state = ChecksState(state.first_sound_s, 0, (*state.reasons, reason))
            position = -(-position_bytes // self._format.frame_bytes)
            self.found.append((position, Notice(reason, message)))

    def _add_to_head(self, data: bytes) -> None:
        assert self._head is not None
        self._head += data[: _HEAD_BYTES - len(self._head)]
        if len(self._head) == _HEAD_BYTES:
            self._check_head()

    def _check_head(self) -> None:
        assert self._head is not None
        head, self._head = bytes(self._head), None
        found = None
        if len(head) >= _MIN_HEAD_BYTES:
            found = identify_binary(head) if self._is_quiet_8_bit(head) else identify(head)
        if found is not None:
            self._report(
                NOT_RAW_SAMPLES,
                f"The audio begins like {found.article} {found}, but a stream consists of raw samples "
                f"({self._format.encoding.name}): decode it first, or send it in one Spot call.",
                self._position if len(head) < _HEAD_BYTES else len(head),
            )

    def _is_quiet_8_bit(self, data: bytes) -> bool:
        if self._format.encoding not in {Encoding.MULAW, Encoding.ALAW}:
            return False
        whole = data[: len(data) // self._format.frame_bytes * self._format.frame_bytes]
        return float(np.abs(interleaved_samples(whole, self._format)).max()) < _TEXT_PEAK

    def _count_silence(self, part: bytes) -> None:
        if DIGITAL_SILENCE in self._state.reasons:
            return
        leading = len(part) - len(part.lstrip(self._silent))
        missing = _SILENCE_S * self._second_bytes - self._silent_bytes
        if leading >= missing:
            self._report(
                DIGITAL_SILENCE,
                f"{_SILENCE_S} s of the audio are digital silence: check whether the microphone is muted or "
                "another program uses it. Send `silence` for pauses.",
                self._position + missing,
            )
            self._silent_bytes = 0
        elif leading == len(part):
            self._silent_bytes += leading
        else:
            self._silent_bytes = len(part) - len(part.rstrip(self._silent))

    def _is_silent(self, data: bytes) -> bool:
        return not data.lstrip(self._silent)

    def _check_window(self) -> None:
        audio_format, data = self._format, bytes(self._window)
        self._window.clear()
        if self._is_silent(data):
            return
        data = data[: len(data) // audio_format.frame_bytes * audio_format.frame_bytes]
        samples = interleaved_samples(data, audio_format)
        magnitude = np.abs(samples)
        peak = float(magnitude.max())
        if not _QUIETEST_PEAK < peak <= MAX_PEAK:  # NaN too
            return
        if self._state.first_sound_s is None:
            second = (self._position - 1) // self._second_bytes
            self._state = ChecksState(second, 0, self._state.reasons)
        if peak >= _FULL_SCALE:
            share = float((magnitude >= _FULL_SCALE).mean())
            if share >= _CLIPPED_SHARE:
                self._report(
                    CLIPPED,
                    f"{share:.0%} of the samples are at full scale: the audio is clipped, or it is not "
                    f"{audio_format.encoding.name}. Lower the gain, or scale the samples.",
                    self._position,
                )
        if audio_format.channel is None and channels_cancel(samples):
            self._report(
                CHANNELS_CANCEL,
                "The channels cancel each other: their mean is nearly silent. Send one of them, or check the "
                "microphone's wiring.",
                self._position,
            )
        if {NOT_RAW_SAMPLES, OTHER_FORMAT, CLIPPED}.isdisjoint(self._state.reasons):
            other = other_format(data, audio_format)
            if other is not None:
                self._report(
                    OTHER_FORMAT,
                    f"The audio looks like {other}, but its format is stated as "
                    f"{audio_format.encoding.name}: state the right one, or convert the audio.",
                    self._position,
                )
