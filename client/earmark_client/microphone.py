"""Audio from a microphone, recorded by PortAudio through the optional package sounddevice."""

from __future__ import annotations

import os
import queue
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from earmark_client.audio import Encoding, Silence
from earmark_client.errors import MicrophoneError, NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK_S = 0.1
# Length of the queue. If the reader falls further behind, audio is replaced by silence of its length.
_QUEUE_S = 10.0
# How long an open device may record nothing before it counts as pulled out, and how often it is tried then.
_NO_AUDIO_S = 5.0
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class InputDevice:
    """A recording device; `index`, or any unambiguous part of `name`, selects it."""

    index: int
    name: str
    channels: int
    sample_rate_hz: int
    default: bool


def input_devices() -> list[InputDevice]:
    """Return all recording devices. Raises NotInstalledError without sounddevice or PortAudio."""
    sounddevice = _sounddevice()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (sounddevice.PortAudioError, ValueError):
        default = None
    return [
        InputDevice(
            index=device["index"],
            name=device["name"],
            channels=device["max_input_channels"],
            sample_rate_hz=round(device["default_samplerate"]),
            default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


class Microphone:
    """An open microphone: an iterable of LINEAR16 blocks of 0.1 s, one channel, until `stop()`.

    `device`: an index, a part of a name, or None for the default. `channel`: record this channel of it, 1 for
    the first; None: what the system mixes to one channel. `duration_s`: stop after this much audio. If the
    reader falls more than 10 s behind, audio is replaced by `Silence` of the same length,
    so that offsets stay correct; `lost_s` is the length of that audio. Raises MicrophoneError if there is
    no microphone, or it cannot be opened, or it fails. `on_connection`: wait for a microphone that is pulled
    out, with silence in its place, instead of raising; called with False when it is gone, and with True when
    it records again, by the thread that iterates.
    """

    encoding = Encoding.LINEAR16
    channels = 1

    def __init__(
        self,
        device: int | str | None = None,
        *,
        duration_s: float | None = None,
        channel: int | None = None,
        on_connection: Callable[[bool], None] | None = None,
    ) -> None:
        sounddevice = _sounddevice()
        chosen = _choose(sounddevice, device)
        if channel is not None and not 1 <= channel <= chosen.channels:
            raise MicrophoneError(
                f"the microphone {chosen.name!r} has no channel {channel}: it has {chosen.channels}"
            )
        self._channel = channel
        self.name = chosen.name
        self.sample_rate_hz = chosen.sample_rate_hz
        self.lost_s = 0.0
        self._pending_silence_s = 0.0
        self._remaining_frames = None if duration_s is None else round(duration_s * chosen.sample_rate_hz)
        self._on_connection = on_connection
        self._stopped = False
        self._open(sounddevice, chosen.index)

    def _open(self, sounddevice: Any, index: int) -> None:
        # A SimpleQueue, because its put() is reentrant: a signal handler may call stop().
        blocks: queue.SimpleQueue[bytes | Silence | None] = queue.SimpleQueue()
        self._blocks = blocks
        try:
            with _quiet():
                self._stream = sounddevice.RawInputStream(
                    device=index,
                    samplerate=self.sample_rate_hz,
                    blocksize=round(_BLOCK_S * self.sample_rate_hz),
                    channels=self._channel or 1,
                    dtype="int16",
                    callback=self._on_audio,
                    finished_callback=lambda: blocks.put(None),
                )
                self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise MicrophoneError(f"the microphone {self.name!r} cannot be opened: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the device; the iterator ends."""
        self.stop()
        self._close_stream()

    def _close_stream(self) -> None:
        # Only once: PortAudio would use the memory of a stream that is closed.
        stream, self._stream = self._stream, None
        if stream is not None:
            with _quiet():
                stream.close()

    def stop(self) -> None:
        """Stop recording; the iterator ends after the recorded audio. May be called in a signal handler."""
        self._stopped = True
        self._blocks.put(None)

    def __iter__(self) -> Iterator[bytes | Silence]:
        for block in self._recorded():
            yield block
            if self._remaining_frames is not None:
                self._remaining_frames -= (
                    round(block.seconds * self.sample_rate_hz)
                    if isinstance(block, Silence)
                    else len(block) // 2
                )
                if self._remaining_frames <= 0:
                    return

    def _recorded(self) -> Iterator[bytes | Silence]:
        while True:
            last_s = time.monotonic()
            while (block := self._next_block()) is not None:
                last_s = time.monotonic()
                yield block
            if self._stopped:
                return
            if self._on_connection is None:
                raise MicrophoneError(f"the microphone {self.name!r} has stopped: check that it is connected")
            self._on_connection(False)
            yield from self._silence_until_reopened(last_s)
            if not self._stopped:
                self._on_connection(True)

    def _next_block(self) -> bytes | Silence | None:
        try:
            return self._blocks.get(timeout=None if self._on_connection is None else _NO_AUDIO_S)
        except queue.Empty:  # some systems do not report that a device is gone
            return None

    def _silence_until_reopened(self, last_s: float) -> Iterator[Silence]:
        """Yield silence from `last_s` on, when the last audio came, until the device records again."""
        self._close_stream()
        while not self._stopped:
            time.sleep(_RETRY_S)
            now_s = time.monotonic()
            yield Silence(now_s - last_s)
            last_s = now_s
            if self._reopen():
                return

    def _reopen(self) -> bool:
        """Open the device of the same name, if there is one again; return whether it records."""
        sounddevice = _sounddevice()
        with _quiet():
            # PortAudio lists the devices only when it starts.
            sounddevice._terminate()
            sounddevice._initialize()
        for device in input_devices():
            if _model_name(device.name) == _model_name(self.name):
                try:
                    self._open(sounddevice, device.index)
                except MicrophoneError:
                    continue
                return True
        return False

    def _on_audio(self, data: Any, frames: int, _time: Any, _status: Any) -> None:
        if self._stopped:
            return
        if self._blocks.qsize() * _BLOCK_S >= _QUEUE_S:
            self.lost_s += frames / self.sample_rate_hz
            self._pending_silence_s += frames / self.sample_rate_hz
            return
        if self._pending_silence_s:
            self._blocks.put(Silence(self._pending_silence_s))
            self._pending_silence_s = 0.0
        samples = bytes(data)
        if self._channel is not None:
            samples = np.frombuffer(samples, np.int16)[self._channel - 1 :: self._channel].tobytes()
        self._blocks.put(samples)


def _model_name(name: str) -> str:
    """Return a device's name without its number, which changes when it is plugged in again."""
    return re.sub(r" \(hw:\d+,\d+\)$", "", name)


def _choose(sounddevice: Any, device: int | str | None) -> InputDevice:
    """Return the selected device. Raises MicrophoneError if there is none."""
    devices = input_devices()
    if not devices:
        raise MicrophoneError(
            "there is no microphone: the audio system has no recording device. Connect one, and list all "
            "with `earmark listen --list-devices`"
        )
    if device is None:
        return next((known for known in devices if known.default), devices[0])
    try:
        index = sounddevice.query_devices(device, "input")["index"]
    except (sounddevice.PortAudioError, ValueError) as error:
        raise MicrophoneError(
            f"there is no recording device {device!r} ({error}): list them with "
            "`earmark listen --list-devices`"
        ) from error
    return next(known for known in devices if known.index == index)


def _sounddevice() -> Any:
    """Import sounddevice, which searches for the sound hardware during its import."""
    try:
        with _quiet():
            import sounddevice
    except ImportError as error:
        from earmark_audio.extras import install_command

        raise NotInstalledError(
            f"the microphone needs the package sounddevice: {install_command('mic')}"
        ) from error
    except OSError as error:
        raise NotInstalledError(
            f"the microphone needs the PortAudio library ({error}): install it, on Debian and Ubuntu with "
            "`apt install libportaudio2`"
        ) from error
    return sounddevice


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard the messages that ALSA and PortAudio write to standard error from C."""
    try:
        saved = os.dup(2)
    except OSError:  # standard error is closed
        yield
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
