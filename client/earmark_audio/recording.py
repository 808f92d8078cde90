"""The reader of recordings.

It is the same for the client, the server and the training, so that a file gives the same samples, or the same
error, everywhere.
"""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from earmark_audio import ffmpeg
from earmark_audio.beginnings import BEGINNINGS, joined_layout
from earmark_audio.errors import (
    DAMAGED,
    AudioFileError,
    IncompleteError,
    UnknownFormatError,
    UnsupportedRateError,
    other_form,
)
from earmark_audio.file_view import FileView
from earmark_audio.flac import flac_layout
from earmark_audio.formats import (
    AU,
    CAF,
    CONVERT,
    FLAC,
    HEAD_BYTES,
    MP2,
    MP3,
    READ_FORMATS,
    RF64,
    W64,
    WAV,
    Decoder,
    Format,
    identify,
    identify_file,
)
from earmark_audio.levels import Levels, mix_down
from earmark_audio.limits import channel_problem, rate_problem, sample_problem
from earmark_audio.live_wav import LiveWav, read_header
from earmark_audio.matroska import check_matroska_end
from earmark_audio.mp3 import mp2_layout, mp3_layout
from earmark_audio.mp4 import mp4_layout
from earmark_audio.notices import append_new, other_tracks
from earmark_audio.ogg import ogg_layout
from earmark_audio.pipe import Pipe
from earmark_audio.recording_parts import Layout, Part
from earmark_audio.sndfile import SndfileSource
from earmark_audio.video import avi_layout, check_asf_end, check_flv_end, check_ts_end
from earmark_audio.wav import UNFINISHED, au_layout, check_nut_end, check_sox_end, chunked_layout, iff_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from earmark_audio.notices import Notice

    _PartSource = SndfileSource | ffmpeg.PyAvSource | ffmpeg.ProgramSource

_MAX_COPIED_BYTES = 1 << 30
"""How much of a pipe is copied to a temporary file."""

_CHECKS_OF_THE_END = {
    "asf": check_asf_end,
    "flv": check_flv_end,
    "matroska": check_matroska_end,
    "mpegts": check_ts_end,
    "nut": check_nut_end,
    "sox": check_sox_end,
}


class RecordingFile:
    """A recording that is decoded block by block: never a whole long one in memory.

    source: the path of a file, the bytes of one, a binary file that is open, or a Pipe. From a pipe, WAV,
        RF64 and Wave64 are decoded as they come. Other formats need to be read in more than one place, so
        they are copied to a temporary file first, of up to 1 GiB.
    programs: whether the program `ffmpeg` may decode what nothing else does.
    longest_s: the length beyond which a recording is not wanted. Where opening it takes time in proportion to
        its length, one that is longer raises TooLongFileError early.

    `format`, `codec`, `sample_rate_hz` and `channels` are known once it is open; `levels` and `notices` are
    complete when everything has been read. `declared_s` is the length in seconds that the file states, None
    where it states none. `is_live`: the recording is decoded as it comes.

    AudioFileError for a file that is no recording or is unreadable; OSError for a path that cannot be opened.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | BinaryIO | Pipe,
        *,
        programs: bool = True,
        longest_s: float | None = None,
    ) -> None:
        self._longest_s = longest_s
        self._owned = ExitStack()
        self._source: Any = None
        self._layout = Layout([])
        self.notices: list[Notice] = []
        self.is_live = False
        try:
            self._file: Any = source
            if isinstance(source, bytes):
                self._file = io.BytesIO(source)
            elif isinstance(source, str | os.PathLike):
                self._file = self._owned.enter_context(open(source, "rb"))  # noqa: SIM115 - closed with it
            if not isinstance(self._file, Pipe) and not _has_end(self._file):
                # A buffer's lock would be held by a thread that still reads when the program exits.
                is_own = self._file is not source
                self._file = Pipe(self._file.raw if is_own else self._file)
            if isinstance(self._file, Pipe):
                self._open_pipe(self._file)
            if not self.is_live:
                self._open_file(programs)
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
        if self._source is not None:
            self._source.close()
            self._source = None
        self._owned.close()

    @property
    def stated_s(self) -> float | None:
        """The length in seconds that the header states, even of a truncated file; None if it states none."""
        if self.declared_s is None or UNFINISHED in self.notices:
            return None
        return self.declared_s * self._layout.stated_share

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the samples, float32 [up to 4096, channels], full scale at -1 and 1.

        IncompleteError, after every sample that could be decoded, for a recording that is cut off or damaged.
        AudioFileError for one without audio, and for samples that are not finite or far beyond full scale.
        """
        decoded = False
        self._check_scale()
        try:
            for block in self._decoded():
                if problem := sample_problem(block):
                    # No encoder of a lossy codec makes such samples of any audio, but a damaged packet does.
                    raise AudioFileError(problem) if self._has_floats else IncompleteError(DAMAGED)
                decoded = decoded or bool(len(block))
                self.levels.add(block, mix_down(block))
                yield block
            if (problem := self._read_problem() or self._layout.missing) is not None:
                raise IncompleteError(problem)
        except IncompleteError as error:
            self.notices += self.levels.notices()
            if problem := self._read_problem():
                raise IncompleteError(problem) from error  # the decoder sees only that no more comes
            raise
        if not decoded:
            raise AudioFileError("The recording is empty: it contains no samples.")
        self.notices += self.levels.notices()

    def mono(self, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
        """Iterate over a channel (1: the first), or the mean of all, float32 [n]; errors as for `blocks`."""
        if channel is not None and not 1 <= channel <= self.channels:
            raise AudioFileError(f"There is no channel {channel}: the recording has {self.channels}.")
        for block in self.blocks():
            yield mix_down(block) if channel is None else block[:, channel - 1]

    def _read_problem(self) -> str | None:
        """Return why the file could not be read to its end, as a sentence; None if it could."""
        return next((part.view.problem for part in self._layout.parts if part.view.problem), None)

    def _open_pipe(self, pipe: Pipe) -> None:
        """Decode from a pipe, or copy it."""
        if pipe.is_terminal:
            raise AudioFileError("This is a terminal, not a recording: give the name of a file.")
        head = pipe.peek(HEAD_BYTES)
        self.format = _checked(identify(head), len(head))
        header = read_header(pipe) if self.format in (WAV, RF64, W64) else None
        if header is not None:
            live = LiveWav(pipe, header)
            self.is_live, self.notices = True, live.notices
            self._use(live)
            return
        self._file = self._owned.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with it
        while data := pipe.read_some(1 << 20):
            if self._file.tell() + len(data) > _MAX_COPIED_BYTES:
                raise AudioFileError(
                    f"From a pipe, {self.format} is copied before it is read, and at most 1 GiB of it: give "
                    "the name of a file, or send WAV."
                )
            self._file.write(data)

    def _open_file(self, programs: bool) -> None:
        kind, start = identify_file(self._file)
        size = self._file.seek(0, os.SEEK_END)
        self.format = _checked(kind, size)
        if start:
            self._file = FileView(self._file, [(start, max(0, size - start))])
        self._layout = _layout(self._file, self.format, self._longest_s)
        self.notices += self._layout.notices
        if not self._layout.parts:
            raise AudioFileError(f"The {self.format} file holds no audio: there is no whole frame in it.")
        self._programs = programs
        source = self._open_part(self._layout.parts[0])
        self._use(source)
        if source.track_count > 1:
            self.notices.append(other_tracks(source.track_count))

    def _use(self, source: _PartSource | LiveWav) -> None:
        self._source = source
        self.sample_rate_hz: int = source.sample_rate_hz
        self.channels: int = source.channels
        self.codec: str = source.codec
        is_whole = len(self._layout.parts) <= 1
        self.declared_s: float | None = source.declared_s if is_whole else None

    def _open_part(self, part: Part) -> _PartSource:
        if self.format.decoder is Decoder.SNDFILE:
            return SndfileSource(part, self.format)
        view: Any = part.view
        return ffmpeg.open_source(view, self.format, programs=self._programs)

    def _part_blocks(self) -> Iterator[NDArray[np.float32]]:
        for index, part in enumerate(self._layout.parts):
            try:
                source = self._source if index == 0 else self._open_part(part)
            except AudioFileError as error:
                raise IncompleteError(DAMAGED) from error
            try:
                form = source.sample_rate_hz, source.channels
                if form != (self.sample_rate_hz, self.channels):
                    raise other_form(*form, self.sample_rate_hz, self.channels)
                yield from source.blocks()
            finally:
                if index:
                    source.close()
            for notice in source.notices:
                append_new(self.notices, notice)

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        if self.is_live:
            blocks: Iterator[NDArray[np.float32]] = self._source.blocks()
            return blocks
        return self._part_blocks()

    @property
    def _has_floats(self) -> bool:
        """Whether the file itself has float samples: libsndfile's and FFmpeg's names of such codecs."""
        return "float" in self.codec or self.codec.startswith(("pcm_f", "wavpack"))

    def _check_scale(self) -> None:
        """Reject a file of float samples far beyond full scale as a whole: its quiet parts are noise too."""
        if self.is_live or self.format.decoder is not Decoder.SNDFILE or not self._has_floats:
            return
        try:
            for block in self._part_blocks():
                if problem := sample_problem(block):
                    raise AudioFileError(problem)
        except IncompleteError:
            pass  # it is raised again after the samples
        self._source.close()
        self._source = self._open_part(self._layout.parts[0])


def _has_end(file: BinaryIO) -> bool:
    """Return whether a file can seek, also to its end: devices and files of the kernel state no length."""
    if not file.seekable():
        return False
    try:
        if file.seek(0, os.SEEK_END):
            return True
    except OSError:
        return False
    finally:
        file.seek(0)
    is_empty = not file.read(1)
    file.seek(0)
    return is_empty


def _checked(kind: Format | None, size: int) -> Format:
    """Return the format of a file of `size` bytes; AudioFileError if it is not a recording."""
    if not size:
        raise AudioFileError("The recording is empty: it has no bytes.")
    if kind is None:
        raise UnknownFormatError(
            f"The format is unknown: the file does not begin like {READ_FORMATS}. Raw samples need their "
            f"encoding and sample rate stated. For anything else, {CONVERT}."
        )
    if kind.decoder is Decoder.NONE:
        problem = "" if kind.remedy else ", which is not supported"
        raise AudioFileError(f"This is {kind.article} {kind}{problem}: {kind.remedy or CONVERT}.")
    return kind


def _layout(  # noqa: PLR0911 - one answer for each kind of structure
    file: BinaryIO, kind: Format, longest_s: float | None
) -> Layout:
    """Return the parts of a file. Of the other formats FFmpeg finds joined recordings itself."""
    size = file.seek(0, os.SEEK_END)
    if kind.container == "Ogg":
        return ogg_layout(file, size)
    if kind.demuxer == "mov":
        return mp4_layout(file, size)
    if kind.demuxer == "avi":
        return avi_layout(file, size)
    if kind is MP2:
        return mp2_layout(file, size)
    if kind.demuxer not in (None, "wav", "caf"):
        layout = Layout([Part(FileView(file, [(0, size)]))])
        if kind.demuxer in BEGINNINGS:
            layout = joined_layout(file, size, BEGINNINGS[kind.demuxer])
        if kind.demuxer in _CHECKS_OF_THE_END:
            _CHECKS_OF_THE_END[kind.demuxer](layout)
        return layout
    if kind is MP3:
        return mp3_layout(file, size, longest_s)
    if kind is FLAC:
        return flac_layout(file, size)
    if kind is AU:
        return au_layout(file, size)
    if kind is W64 or kind.container == CAF.container:
        return chunked_layout(file, size)
    return iff_layout(file, size)


def _check_form(sample_rate_hz: int, channels: int) -> None:
    if problem := rate_problem(sample_rate_hz):
        raise UnsupportedRateError(problem)
    if problem := channel_problem(channels):
        raise AudioFileError(problem)
