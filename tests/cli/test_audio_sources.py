"""Raw samples from standard input."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from earmark_cli.audio_sources import RawInput
from earmark_client import RecordingError
from earmark_client.audio import AudioFormat

if TYPE_CHECKING:
    from pathlib import Path


def _piped(data: bytes, **settings: object) -> RawInput:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return RawInput(reading, AudioFormat(16_000), **settings)  # type: ignore[arg-type]


def test_raw_samples_are_passed_on_unchanged() -> None:
    assert b"".join(_piped(b"\x01\x02\x03", block_s=0.1)) == b"\x01\x02\x03"


def test_a_file_with_a_header_on_standard_input_is_rejected() -> None:
    with pytest.raises(RecordingError, match="contains a WAV file"):
        list(_piped(b"RIFF\x00\x00\x00\x00WAVE"))


def test_empty_standard_input_is_reported() -> None:
    with pytest.raises(RecordingError, match="no audio"):
        list(_piped(b""))


def test_a_terminal_or_an_unreadable_standard_input_is_reported(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for descriptor, sentence in [(theirs, "is a terminal"), (folder, "cannot be read: Is a directory")]:
            pipe = RawInput(descriptor, AudioFormat(16_000))
            with pytest.raises(RecordingError, match=sentence):
                list(pipe)
    finally:
        for descriptor in (ours, theirs, folder):
            os.close(descriptor)
