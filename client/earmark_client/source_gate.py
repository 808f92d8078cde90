"""The gate at the source: it sends silence in place of audio that is nearly silent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import mix_down
from earmark_audio.energy_gate import STEPS_PER_SECOND, EnergyGate, GateSettings

from earmark_client.audio import Encoding
from earmark_client.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.audio import AudioFormat

# Audio before the block that opens the gate is sent as well: a word may begin softly.
_LEAD_S = 0.6

# A longer silence is sent in parts of this length, so that the server knows how far the stream is.
_SILENCE_S = 1.0


class SourceGate:
    """Replaces nearly silent audio by silence, which is a few bytes; the length of the stream stays.

    While the gate is open, audio passes at once. While it is closed, the newest 0.6 s of audio are held back,
    and sent if the gate opens. `earmark_audio.energy_gate` explains when it does. The chunks do not matter.
    """

    def __init__(self, audio_format: AudioFormat) -> None:
        """Start a stream. Raises InvalidRequestError for an encoding or a rate that it does not support."""
        if audio_format.encoding not in {Encoding.LINEAR16, Encoding.FLOAT32}:
            raise InvalidRequestError(
                f"a gate needs linear16 or float32 audio, not {audio_format.encoding.value}: "
                "convert the audio, or stream without a gate",
                reason="UNSUPPORTED_ENCODING",
            )
        if audio_format.sample_rate_hz < STEPS_PER_SECOND:
            raise InvalidRequestError(
                f"the sample rate {audio_format.sample_rate_hz} Hz is not supported: it must be 8000 to "
                "192000 Hz",
                reason="UNSUPPORTED_SAMPLE_RATE",
            )
        step_samples = audio_format.sample_rate_hz // STEPS_PER_SECOND
        self._gate = EnergyGate(GateSettings(), audio_format.sample_rate_hz, step_samples)
        self._format = audio_format
        self._step_bytes = step_samples * audio_format.frame_bytes
        self._block_bytes = self._gate.steps_per_block * self._step_bytes
        self._lead_bytes = audio_format.byte_offset(_LEAD_S)
        self._silence_bytes = audio_format.byte_offset(_SILENCE_S)
        self._unobserved = bytearray()
        self._held = bytearray()  # not sent yet, with what is not observed at its end
        self._silent_bytes = 0  # replaced, and not sent yet

    def process(self, data: bytes) -> Iterator[bytes | int]:
        """Append audio; yield what to send now: audio, or the length of a silence in bytes of audio."""
        self._unobserved += data
        self._held += data
        while True:
            if self._gate.is_open:
                yield from self._send_held()
                steps = min(self._gate.open_steps, len(self._unobserved) // self._step_bytes)
                if not steps:
                    return
                self._observe(steps * self._step_bytes)
            elif len(self._unobserved) >= self._block_bytes:
                self._observe(self._block_bytes)
                if not self._gate.is_open:
                    self._replace()
            else:
                break
        if self._silent_bytes >= self._silence_bytes:
            yield self._pop_silence()

    def flush(self) -> Iterator[bytes | int]:
        """Yield what is held back, before a pause or at the end of the audio."""
        if self._silent_bytes:
            yield self._pop_silence()
        if self._held:
            yield bytes(self._held)
            self._held.clear()

    def _observe(self, size: int) -> None:
        data = bytes(self._unobserved[:size])
        del self._unobserved[:size]
        if self._format.encoding is Encoding.LINEAR16:
            samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        else:
            samples = np.frombuffer(data, "<f4").astype(np.float32)
        self._gate.observe(mix_down(samples.reshape(-1, self._format.channels)))

    def _replace(self) -> None:
        """Replace the audio that lies too far back to be sent if the gate opens in the next block."""
        count = max(0, len(self._held) - len(self._unobserved) - self._lead_bytes)
        self._silent_bytes += count
        del self._held[:count]

    def _send_held(self) -> Iterator[bytes | int]:
        if self._silent_bytes:
            yield self._pop_silence()
        # Whole frames only, because a silence cannot begin inside one.
        count = len(self._held) - len(self._held) % self._format.frame_bytes
        # Not beyond the block at whose end the gate may close: a long chunk is treated as short ones are.
        ahead = self._gate.open_steps * self._step_bytes - len(self._unobserved)
        count = min(count, len(self._held) + ahead)
        if count > 0:
            data = bytes(self._held[:count])
            del self._held[:count]
            yield data

    def _pop_silence(self) -> int:
        count, self._silent_bytes = self._silent_bytes, 0
        return count
