"""Formats that libsndfile does not decode, through FFmpeg: the package PyAV, or the program `ffmpeg`."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from earmark_audio.errors import DAMAGED, LAST_PACKET_INCOMPLETE, AudioFileError, IncompleteError
from earmark_audio.extras import install_command
from earmark_audio.notices import PACKET_INCOMPLETE, Notice, report_gaps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from earmark_audio.formats import Format

_BLOCK_BYTES = 1 << 16
_MAX_MESSAGE_BYTES = 1 << 20

_STATED_LENGTH = ("mov", "matroska", "asf", "wv", "tta", "ape", "avi", "flv", "rm", "nistsphere")
"""Containers whose header states the length. FFmpeg estimates that of the others from their size."""

_STATED_FROM_ZERO = "matroska"
"""The container whose stated length counts from zero, and not from the first timestamp."""

_STATED_FOR_ALL = ("flv", "rm", "asf")
"""Those that state one length for all tracks: the audio may be shorter than the video."""

_WITH_CHECKSUMS = ("ape", "flac", "tta", "wavpack")
"""Codecs whose packets have checksums. FFmpeg compares them only if told to: damage would be loud noise."""

_CHECKS = "crccheck+explode"

_LENGTH_TOLERANCE_S = 0.25
"""The length that a header states may include what an encoder adds or removes at both ends, and timestamps
may be as imprecise."""

_LAST_S = 0.5
"""A packet that is incomplete is the last one of the file if no more audio than this follows it."""

_PARTLY_DAMAGED = "The recording is damaged: a part of it cannot be decoded."

# Of a transport stream, gaps between packets count as corrupt, too: joined ones have them.
_INCOMPLETE_PACKET = re.compile(rb"Packet corrupt \(|corrupt input packet|corrupt decoded frame")
_INCOMPLETE_TS_PACKET = re.compile(rb"PES packet size mismatch")
# An invalid argument is no damage: the packet without audio that ends FLAC in NUT, for example.
_NOT_DECODED = re.compile(
    rb"(Error while decoding|Error submitting .*to decoder|Decoding error)(?!.*Invalid argument)"
)


def has_package() -> bool:
    """Return whether PyAV, the extra `formats`, is installed."""
    return importlib.util.find_spec("av") is not None


def has_program() -> bool:
    """Return whether there is a program `ffmpeg`."""
    return shutil.which("ffmpeg") is not None


class PyAvSource:
    """The first audio stream of a file, decoded in this process."""

    def __init__(self, file: BinaryIO, kind: Format) -> None:
        import av

        self._av: Any = av
        file.seek(0)
        try:
            self._container: Any = self._av.open(file, format=kind.demuxer)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise AudioFileError(f"The {kind} file is damaged: its header cannot be read.") from error
        if not self._container.streams.audio:
            self._container.close()
            raise AudioFileError(f"The {kind} file holds no audio.")
        self._stream: Any = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise AudioFileError(
                f"The codec of the {kind} file is not supported: convert it, for example with "
                "`ffmpeg -i INPUT out.wav`."
            )
        self._kind = kind
        self.notices: list[Notice] = []
        self.track_count = len(self._container.streams.audio)
        self.sample_rate_hz = int(self._stream.codec_context.sample_rate or 0)
        self.channels = int(self._stream.codec_context.channels or 0)
        self.codec = str(self._stream.codec_context.name)
        if self.codec in _WITH_CHECKSUMS:
            self._stream.codec_context.options = {"err_detect": _CHECKS}
        duration: Any = self._stream.duration
        is_only = len(self._container.streams) == 1
        if kind.demuxer in _STATED_FOR_ALL and not is_only:
            duration = None
        self.declared_s = None if duration is None else float(duration * self._stream.time_base)
        self._start_s = float((self._stream.start_time or 0) * self._stream.time_base)
        self._late_s = self._start_s - (self._container.start_time or 0) / self._av.time_base
        if duration is None and self._container.duration and is_only:
            self.declared_s = self._container.duration / self._av.time_base
            if kind.demuxer == _STATED_FROM_ZERO:
                self.declared_s -= max(0.0, self._start_s)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the samples, [n, channels]. IncompleteError, after them, where decoding fails."""
        layout, form = self._stream.codec_context.layout, None
        resampler: Any = None
        frames, incomplete_at, failures = 0, None, 0
        gaps_s, expected_s = 0.0, self._start_s
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size and packet.dts is not None:
                    continue  # it holds no audio, and would end the decoding
                if packet.is_corrupt:
                    incomplete_at = frames
                try:
                    decoded = packet.decode()
                except self._av.error.FFmpegError:
                    decoded, failures = [], failures + 1
                for frame in decoded:
                    time_s = expected_s if frame.time is None else frame.time
                    if time_s - expected_s > _LENGTH_TOLERANCE_S:
                        gaps_s += time_s - expected_s
                    expected_s = time_s + frame.samples / frame.sample_rate
                    frame.pts = None
                    if frame.is_corrupt:
                        incomplete_at = frames
                    if form != (form := (frame.format.name, frame.layout.name, frame.sample_rate)):
                        # Broadcasts change between mono, stereo and surround sound.
                        resampler = self._av.AudioResampler("flt", layout, self.sample_rate_hz)
                    for made in resampler.resample(frame):
                        frames += made.samples
                        yield made.to_ndarray().reshape(-1, self.channels)
            for made in resampler.resample(None) if resampler else ():
                frames += made.samples
                yield made.to_ndarray().reshape(-1, self.channels)
        except (self._av.error.FFmpegError, ValueError) as error:
            raise IncompleteError(_not_decoded(self._kind, DAMAGED)) from error
        _check_length(self._kind, self.declared_s, frames / self.sample_rate_hz + gaps_s)
        report_gaps(self._late_s + gaps_s, self.notices)
        is_last = incomplete_at is not None and frames - incomplete_at <= _LAST_S * self.sample_rate_hz
        _report_damage(self._kind, failures, is_last, self.notices)


class ProgramSource:
    """The first audio stream of a file, decoded by the program `ffmpeg`."""

    def __init__(self, file: BinaryIO, kind: Format) -> None:
        self._kind = kind
        self.notices: list[Notice] = []
        self._stack = contextlib.ExitStack()
        try:
            # Without a name, so that nothing is left of it, however this process ends.
            copy = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
            file.seek(0)
            shutil.copyfileobj(file, copy)
            copy.flush()
            self._probe(copy)
            self._messages = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            self._progress = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            # The demuxer is stated and only files may be opened: a recording cannot make it reach for others.
            command = ["ffmpeg", "-nostdin", "-loglevel", "repeat+warning", "-progress", _url(self._progress)]
            command += ["-protocol_whitelist", "file,pipe"]
            if self.codec in _WITH_CHECKSUMS:
                command += ["-err_detect", _CHECKS]
            command += ["-f", kind.demuxer or "", "-i", _url(copy), "-map", "0:a:0"]
            command += ["-ac", str(self.channels), "-ar", str(self.sample_rate_hz), "-f", "f32le", "-"]
            self._process = self._stack.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=self._messages,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[copy.fileno(), self._progress.fileno()],
                )
            )
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """End the program and remove the copy."""
        self._process.kill()
        self._stack.close()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the samples, [n, channels]. IncompleteError, after them, where decoding fails."""
        frame_bytes = 4 * self.channels
        rest, frames = b"", 0
        assert self._process.stdout is not None
        while data := self._process.stdout.read(_BLOCK_BYTES):
            data = rest + data
            cut = len(data) - len(data) % frame_bytes
            rest = data[cut:]
            frames += cut // frame_bytes
            yield np.frombuffer(data[:cut], "<f4").reshape(-1, self.channels)
        if self._process.wait():
            raise IncompleteError(_not_decoded(self._kind, DAMAGED))
        # The timestamps of what the program wrote have the gaps, which its samples do not have.
        self._progress.seek(0)
        ends_us = re.findall(rb"out_time_us=(\d+)", self._progress.read())
        found_s = frames / self.sample_rate_hz
        gaps_s = max(0.0, int(ends_us[-1]) / 1e6 - self._late_s - found_s) if ends_us else 0.0
        _check_length(self._kind, self.declared_s, found_s + gaps_s)
        report_gaps(self._late_s + gaps_s, self.notices)
        self._messages.seek(0)
        messages = self._messages.read(_MAX_MESSAGE_BYTES)
        pattern = _INCOMPLETE_TS_PACKET if self._kind.demuxer == "mpegts" else _INCOMPLETE_PACKET
        failures = len(_NOT_DECODED.findall(messages))
        _report_damage(self._kind, failures, bool(pattern.search(messages)), self.notices)

    def _probe(self, copy: IO[bytes]) -> None:
        """Set the number of audio streams, and what is stated of the first.

        `_late_s`: how much later than the file it begins.
        """
        if shutil.which("ffprobe") is None:
            raise AudioFileError(
                f"To read {self._kind}, install ffprobe beside ffmpeg, or {install_command('formats')}."
            )
        command = ["ffprobe", "-loglevel", "quiet", "-protocol_whitelist", "file,pipe"]
        command += ["-f", self._kind.demuxer or "", "-select_streams", "a", "-show_entries"]
        of_stream = "index,sample_rate,channels,codec_name,start_time,duration"
        command += [f"stream={of_stream}:format=start_time,duration,nb_streams"]
        command += ["-of", "default=noprint_wrappers=1", _url(copy)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
            pass_fds=[copy.fileno()],
        )  # fmt: skip
        lines = [line.split("=", 1) for line in done.stdout.splitlines() if "=" in line]
        # A stream that belongs to a program is listed twice.
        self.track_count = len({value for name, value in lines if name == "index"})
        found = dict(reversed(lines))
        durations = [value for name, value in lines if name == "duration"]  # the stream's, the container's
        if found.get("nb_streams") != "1":
            del durations[0 if self._kind.demuxer in _STATED_FOR_ALL else 1 :]
        try:
            self.declared_s = next((float(value) for value in durations if value != "N/A"), None)
            starts = [float(value) for name, value in lines if name == "start_time" and value != "N/A"]
            start_s, self._late_s = (starts[0], starts[0] - starts[-1]) if starts else (0.0, 0.0)
            if self.declared_s is not None and self._kind.demuxer == _STATED_FROM_ZERO:
                self.declared_s -= max(0.0, start_s)
            self.sample_rate_hz, self.channels = int(found["sample_rate"]), int(found["channels"])
            self.codec = found["codec_name"]
        except (KeyError, ValueError):
            state = "is damaged: its header cannot be read" if done.returncode else "holds no audio"
            raise AudioFileError(f"The {self._kind} file {state}.") from None


def _url(file: IO[bytes]) -> str:
    """Return the address of a file for a program that inherits its descriptor, from its beginning."""
    file.seek(0)  # on some systems it shares the position of this descriptor
    return f"file:/dev/fd/{file.fileno()}"


def _check_length(kind: Format, stated_s: float | None, found_s: float) -> None:
    """Raise IncompleteError if a recording is shorter than its header states."""
    if kind.demuxer not in _STATED_LENGTH or stated_s is None:
        return
    if (missing_s := stated_s - found_s) > _LENGTH_TOLERANCE_S:
        raise IncompleteError(f"The recording is truncated: its last {missing_s:.2f} s are missing.")


def _not_decoded(kind: Format, problem: str) -> str:
    """Return the sentence for what is not decoded: some codecs lose the limits of their frames in WAV."""
    if kind.demuxer != "wav":
        return problem
    return f"The {kind} is damaged, or of a kind that FFmpeg does not decode in full."


def _report_damage(kind: Format, failures: int, is_incomplete: bool, notices: list[Notice]) -> None:
    """Raise IncompleteError for packets that were not decoded, and for a last packet that is incomplete.

    A transport stream has no end: who records one stops within a packet, which is only noticed.
    """
    if failures > is_incomplete:
        raise IncompleteError(_not_decoded(kind, _PARTLY_DAMAGED))
    if is_incomplete and kind.demuxer != "mpegts":
        raise IncompleteError(LAST_PACKET_INCOMPLETE)
    if is_incomplete:
        notices.append(PACKET_INCOMPLETE)


def is_available(*, programs: bool) -> bool:
    """Return whether `open_source` can decode anything."""
    return has_package() or (programs and has_program())


def open_source(file: BinaryIO, kind: Format, *, programs: bool) -> PyAvSource | ProgramSource:
    """Open a file with the decoder that is installed. AudioFileError, with the remedy, if there is none.

    programs: whether `ffmpeg` may be started. A server does not start programs on a stranger's recording.
    """
    if has_package():
        return PyAvSource(file, kind)
    if programs and has_program():
        return ProgramSource(file, kind)
    how = f"install `ffmpeg`, or {install_command('formats')}" if programs else "the extra `formats` reads it"
    raise AudioFileError(
        f"{kind.article.capitalize()} {kind} recording is not read here: {how}, or convert it, "
        "for example with `ffmpeg -i INPUT out.wav`."
    )
