"""The reader of recordings.

It is the same for the client, the server and the training, so that a file gives the same samples, or the same
error, everywhere.
"""

from __future__ import annotations

import io
import os
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from earmark_audio import ffmpeg
from earmark_audio.errors import AudioFileError, IncompleteError, UnsupportedRateError
from earmark_audio.flac import flac_layout
from earmark_audio.formats import (
    AU,
    CAF,
    CONVERT,
    FLAC,
    HEAD_BYTES,
    MP3,
    READ_FORMATS,
    W64,
    Decoder,
    Format,
    identify,
)
from earmark_audio.levels import Levels, mix_down
from earmark_audio.limits import channel_problem, rate_problem, sample_problem
from earmark_audio.mp3 import mp3_layout
from earmark_audio.ogg import ogg_layout
from earmark_audio.parts import Layout, Part
from earmark_audio.wav import au_layout, chunked_layout, iff_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

_DECODE_FRAMES = 4096
"""How much is decoded at once. An error in the middle loses at most this, and always the same."""

_UNKNOWN_FRAMES = 1 << 62  # libsndfile's SF_COUNT_MAX, and what comes near it


class RecordingFile:
    """A recording that is decoded block by block: never a whole long one in memory.

    source: the path of a file, the bytes of one, or a binary file that is open. A pipe is copied to a
        temporary file first: containers need to be read in more than one place.
    programs: whether the program `ffmpeg` may decode what nothing else does.

    `format`, `codec`, `sample_rate_hz` and `channels` are known once it is open; `levels` and `notices` are
    complete when everything has been read. `declared_s` is the length in seconds that the file states, None
    where it states none.

    AudioFileError for what is not a recording, or cannot be read; OSError for a path that cannot be opened.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes | BinaryIO, *, programs: bool = True) -> None:
        self._file, self._is_own = _open(source)
        try:
            self.format, self._layout = _layout(self._file)
            self.notices = list(self._layout.notices)
            self._source: Any = None
            if self.format.decoder is Decoder.FFMPEG:
                self._open_ffmpeg(programs)
            else:
                self._open_sndfile()
            _check_form(self.sample_rate_hz, self.channels)
        except BaseException:
            self.close()
            raise
        self.levels = Levels(self.sample_rate_hz, self.channels)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if it was opened here."""
        source = getattr(self, "_source", None)
        if source is not None:
            source.close()
            self._source = None
        if self._is_own:
            self._file.close()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the samples, float32 [up to 4096, channels], full scale at -1 and 1.

        IncompleteError, after every sample that could be decoded, for a recording that is cut off or damaged.
        AudioFileError for one without audio, and for samples that are not finite or far beyond full scale.
        """
        decoded = False
        for block in (
            self._ffmpeg_blocks() if self.format.decoder is Decoder.FFMPEG else self._sndfile_blocks()
        ):
            if problem := sample_problem(block):
                raise AudioFileError(problem)
            decoded = decoded or bool(len(block))
            self.levels.add(block, mix_down(block))
            yield block
        if not decoded and self._layout.missing is None:
            raise AudioFileError("The recording is empty: it contains no samples.")
        self.notices += self.levels.notices()
        if self._layout.missing is not None:
            raise IncompleteError(self._layout.missing)

    def mono(self, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Iterate over one channel (1: the first), or the mean of all, float32 [n]; errors as of `blocks`."""
        if channel is not None and not 1 <= channel <= self.channels:
            raise AudioFileError(f"There is no channel {channel}: the recording has {self.channels}.")
        for block in self.blocks():
            yield mix_down(block) if channel is None else block[:, channel - 1]

    def _open_ffmpeg(self, programs: bool) -> None:
        self._source = ffmpeg.open_source(self._file, self.format, programs=programs)
        self.sample_rate_hz: int = self._source.sample_rate_hz
        self.channels: int = self._source.channels
        self.codec: str = self._source.codec
        self.declared_s: float | None = self._source.declared_s

    def _open_sndfile(self) -> None:
        if not self._layout.parts:
            raise AudioFileError(f"The {self.format} file holds no audio: there is no whole frame in it.")
        sound = self._open_part(self._layout.parts[0])
        self._source = sound
        self.sample_rate_hz, self.channels = sound.samplerate, sound.channels
        self.codec = self.format.codec or _codec(sound)
        frames = self._layout.parts[0].declared_frames
        if frames is None and not self._layout.parts[0].view.is_unbounded and sound.frames < _UNKNOWN_FRAMES:
            frames = sound.frames
        is_whole = len(self._layout.parts) == 1
        self.declared_s = frames / sound.samplerate if frames is not None and is_whole else None

    def _open_part(self, part: Part) -> Any:
        import soundfile

        class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
            """Reads from front to back: its seeking after every block can fail or be inexact."""

            def seekable(self) -> bool:
                return False

        part.view.seek(0)
        try:
            return ForwardFile(part.view)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            raise AudioFileError(
                f"The {self.format} file is damaged, or its codec is not supported: {CONVERT}."
            ) from error

    def _sndfile_blocks(self) -> Iterator[NDArray[np.float32]]:
        import soundfile

        for index, part in enumerate(self._layout.parts):
            sound = self._source if index == 0 else self._open_part(part)
            try:
                if (sound.samplerate, sound.channels) != (self.sample_rate_hz, self.channels):
                    raise IncompleteError(
                        f"Another recording follows in the same file, with {sound.samplerate} Hz and "
                        f"{sound.channels} channel(s) in place of {self.sample_rate_hz} Hz and "
                        f"{self.channels}: it was not read. Split the file."
                    )
                frames = 0
                while len(block := sound.read(_DECODE_FRAMES, dtype="float32", always_2d=True)):
                    frames += len(block)
                    yield block
            except soundfile.LibsndfileError as error:
                raise IncompleteError(
                    "The recording is damaged: it cannot be decoded from here on."
                ) from error
            finally:
                if index:
                    sound.close()
            if part.declared_frames is not None and frames < part.declared_frames:
                missing_s = (part.declared_frames - frames) / self.sample_rate_hz
                raise IncompleteError(f"The recording is truncated: its last {missing_s:.2f} s are missing.")

    def _ffmpeg_blocks(self) -> Iterator[NDArray[np.float32]]:
        yield from self._source.blocks()


def _open(source: str | os.PathLike[str] | bytes | BinaryIO) -> tuple[BinaryIO, bool]:
    if isinstance(source, bytes):
        return io.BytesIO(source), True
    if isinstance(source, str | os.PathLike):
        file: BinaryIO = open(source, "rb")  # noqa: SIM115 - closed by RecordingFile
        is_own = True
    else:
        file, is_own = source, False
    if file.seekable():
        return file, is_own
    copy: Any = tempfile.TemporaryFile()  # noqa: SIM115 - closed by RecordingFile
    while block := file.read(1 << 20):
        copy.write(block)
    if is_own:
        file.close()
    copy.seek(0)
    return copy, True


def _layout(file: BinaryIO) -> tuple[Format, Layout]:  # noqa: PLR0911 - one answer for each kind of file
    """Return a file's format and its parts; AudioFileError for what is not a recording."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise AudioFileError("The recording is empty: it has no bytes.")
    kind = identify(head)
    if kind is None:
        raise AudioFileError(
            f"This is not a recording that Earmark knows: {READ_FORMATS} can be read. Raw samples need their "
            "encoding and sample rate stated."
        )
    if kind.decoder is Decoder.NONE:
        article = "an" if kind.container[0] in "AEIOU" else "a"
        raise AudioFileError(
            f"This is {article} {kind}, not a recording that Earmark reads: {CONVERT}, if it holds audio."
        )
    if kind.decoder is Decoder.FFMPEG:
        return kind, Layout([])
    size = file.seek(0, os.SEEK_END)
    if kind is MP3:
        return kind, mp3_layout(file, size)
    if kind is FLAC:
        return kind, flac_layout(file, size)
    if kind.container == "Ogg":
        return kind, ogg_layout(file, size)
    if kind is AU:
        return kind, au_layout(file, size)
    if kind in (W64, CAF):
        return kind, chunked_layout(file, size)
    return kind, iff_layout(file, size)


def _codec(sound: Any) -> str:
    return str(sound.subtype_info)


def _check_form(sample_rate_hz: int, channels: int) -> None:
    if problem := rate_problem(sample_rate_hz):
        raise UnsupportedRateError(problem)
    if problem := channel_problem(channels):
        raise AudioFileError(problem)
