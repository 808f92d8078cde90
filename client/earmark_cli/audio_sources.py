"""Audio sources of the commands: recordings, standard input, and blocks in real time."""

from __future__ import annotations

import os
import shlex
import stat
import time
from contextlib import contextmanager
from dataclasses import replace
from threading import Timer
from typing import TYPE_CHECKING, Self

from earmark_audio import HEAD_BYTES, Pipe, identify, identify_binary
from earmark_audio.errors import UnknownFormatError
from earmark_client.audio import AudioFormat, Encoding
from earmark_client.errors import RecordingError
from earmark_client.microphone import Microphone
from earmark_client.recording import Recording

from earmark_cli.output.console import notice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.errors import EarmarkError


STANDARD_INPUT = "standard input"

_COPY_NOTICE = (
    "this format is read to its end first. For live audio, send WAV or raw samples, for example through "
    "`ffmpeg -i - -f wav -`"
)
_COPY_NOTICE_S = 3.0


class RawInput:
    """Raw samples from a pipe, such as standard input: an iterable of blocks.

    Raises RecordingError if it cannot be read, or contains no audio.
    """

    def __init__(self, pipe: Pipe, audio_format: AudioFormat, *, block_s: float = 1.0) -> None:
        self.sample_rate_hz = audio_format.sample_rate_hz
        self.encoding = audio_format.encoding
        self.channels = audio_format.channels
        self.channel = audio_format.channel
        self._pipe = pipe
        self._block_bytes = max(audio_format.frame_bytes, audio_format.byte_offset(block_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the pipe open, because its owner closes it."""

    def __iter__(self) -> Iterator[bytes]:
        has_audio = False
        with _named_errors():
            while data := self._pipe.read_some(self._block_bytes):
                has_audio = True
                yield data
        if not has_audio:
            raise RecordingError(f"{STANDARD_INPUT} contains no audio")


def standard_input() -> Pipe:
    """Return standard input. Raises RecordingError if it cannot be read."""
    with _named_errors():
        # Not sys.stdin, whose lock a thread that still reads would hold when the program exits.
        return Pipe(open(0, "rb", buffering=0, closefd=False))


def open_recording(
    name: str, *, block_s: float = 1.0, channel: int | None = None, pipe: Pipe | None = None
) -> Recording:
    """Open a recording: a file, or standard input, whose name is `-`. Raises RecordingError."""
    if not name:
        raise RecordingError("the name of a recording is empty")
    is_standard_input = name == "-"
    shown = STANDARD_INPUT if is_standard_input else name
    timer = Timer(_COPY_NOTICE_S, notice, [f"earmark: {shown}: {_COPY_NOTICE}"])
    timer.daemon = True
    if is_standard_input or is_fifo(name):
        timer.start()
    try:
        source = (pipe or standard_input()) if is_standard_input else name
        return Recording(source, block_s=block_s, channel=channel, name=shown)
    finally:
        timer.cancel()


def is_fifo(name: str) -> bool:
    """Return whether a file is a named pipe; False also if it cannot be examined: opening it says why."""
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False


def open_source(
    name: str, raw_format: AudioFormat | None, *, block_s: float, channel: int | None
) -> Recording | RawInput:
    """Open a recording, or raw samples from standard input, whose name is `-`.

    Standard input holds raw samples if it does not begin like a recording or a text; with an encoding of 8
    bits, a text may be samples. `raw_format`: their format, None if the command line states none. Raises
    RecordingError if it cannot be read, or holds something else.
    """
    if name != "-":
        try:
            recording = open_recording(name, block_s=block_s, channel=channel)
        except RecordingError as error:
            if raw_format is None or not isinstance(error.__cause__, UnknownFormatError):
                raise
            raise RecordingError(
                f"{name}: the format is unknown, and --rate, --encoding and --channels are for standard "
                f"input: if the file contains raw samples, use `earmark spot - < {shlex.quote(name)}`",
                reason=error.reason,
            ) from error
        if raw_format is not None:
            _report_unused_format(name, recording)
        return recording
    pipe = standard_input()
    if pipe.is_terminal:
        raise RecordingError(
            f"{STANDARD_INPUT} is a terminal: pipe a recording or raw samples into it, or give the name of a "
            "file"
        )
    with _named_errors():
        head = pipe.peek(HEAD_BYTES)
    is_8_bit = raw_format is not None and raw_format.encoding in {Encoding.MULAW, Encoding.ALAW}
    kind = identify_binary(head) if is_8_bit else identify(head)
    if kind is not None:
        recording = open_recording(name, block_s=block_s, channel=channel, pipe=pipe)
        if raw_format is not None:
            _report_unused_format(STANDARD_INPUT, recording)
        return recording
    raw_format = raw_format or AudioFormat(16_000)
    if channel is not None:
        if channel > raw_format.channels:
            raise RecordingError(
                f"{STANDARD_INPUT}: there is no channel {channel}: the raw samples have "
                f"{raw_format.channels} (--channels)"
            )
        raw_format = replace(raw_format, channel=channel)
    return RawInput(pipe, raw_format, block_s=block_s)


def _report_unused_format(name: str, recording: Recording) -> None:
    notice(
        f"earmark: {name}: the format of raw samples is not used, because the {recording.format} recording "
        "states its own"
    )


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordingError(f"{STANDARD_INPUT} cannot be read: {error.strerror}") from error


AudioSource = Microphone | Recording | RawInput


def audio_format(source: AudioSource) -> AudioFormat:
    """Return the format of the blocks that a source yields."""
    channel = source.channel if isinstance(source, RawInput) else None
    return AudioFormat(source.sample_rate_hz, source.encoding, source.channels, channel)


def in_real_time(source: Recording | RawInput) -> Iterator[bytes]:
    """Yield the blocks of a source in real time, each when its last sample would have been recorded."""
    layout = audio_format(source)
    start_s, yielded_bytes = time.monotonic(), 0
    for block in source:
        yielded_bytes += len(block)
        time.sleep(max(0.0, start_s + layout.seconds(yielded_bytes) - time.monotonic()))
        yield block


def concerns_one_recording(error: EarmarkError) -> bool:
    """Return whether an error concerns one recording, so that another recording may still succeed."""
    return isinstance(error, RecordingError) or error.reason in {"BAD_AUDIO", "UNSUPPORTED_SAMPLE_RATE"}
