"""The recordings in a folder: which files can be read, and why the others cannot."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from earmark_audio.extras import install_command
from earmark_audio.ffmpeg import is_available
from earmark_audio.formats import FFMPEG_SUFFIXES, SUFFIXES, Decoder, identify_file


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not read."""

    path: Path
    why: str
    is_recording: bool
    """Whether it holds a recording, in a format that nothing installed here decodes."""


def find_recordings(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Return the recordings below a folder, sorted, and the files that are left out.

    A file is a recording if its name or its first bytes are those of one. Hidden files and folders are
    passed over, as macOS and version control leave them everywhere.
    """
    recordings: list[Path] = []
    left_out: list[LeftOut] = []

    def unreadable(error: OSError) -> None:
        left_out.append(LeftOut(Path(error.filename), str(error.strerror), is_recording=False))

    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            path = Path(parent, name)
            if name.startswith("."):
                continue
            if reason := _reason_to_leave_out(path):
                left_out.append(reason)
            else:
                recordings.append(path)
    return sorted(recordings), sorted(left_out, key=lambda one: one.path)


def _reason_to_leave_out(path: Path) -> LeftOut | None:
    suffix = path.suffix.lower()
    is_named_recording = suffix in SUFFIXES
    try:
        # Opening a named pipe waits for a writer, and a device may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            return LeftOut(path, "it is not a regular file", is_recording=False)
        if is_named_recording:
            return None
        with path.open("rb") as file:
            kind, _ = identify_file(file)
    except OSError as error:
        if is_named_recording:
            return None  # its reader says what is wrong with it
        return LeftOut(path, str(error.strerror), is_recording=False)
    why = ""
    is_ffmpegs = suffix in FFMPEG_SUFFIXES or (kind is not None and kind.decoder is Decoder.FFMPEG)
    if is_ffmpegs and not is_available(programs=True):
        why = f"install `ffmpeg`, or {install_command('formats')}, or convert it to WAV"
    elif not is_ffmpegs and kind is None:
        why = "its format is unknown"
    elif not is_ffmpegs and kind is not None and kind.decoder is Decoder.NONE:
        why = f"it is {kind.article} {kind}"
    return LeftOut(path, why, is_recording=is_ffmpegs) if why else None
