"""Results that cannot be printed."""

from __future__ import annotations

import os
import sys
from typing import IO, TYPE_CHECKING

import pytest
from earmark_training.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def on_full_disk() -> IO[str]:
    return open("/dev/full", "w", encoding="utf-8")


def to_closed_pipe() -> IO[str]:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (on_full_disk, "earmark-train: the results cannot be written: No space left on device\n"),
        (to_closed_pipe, ""),
    ],
)
def test_results_that_cannot_be_printed_are_a_failure(
    output: Callable[[], IO[str]],
    message: str,
    clips_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with output() as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        code = main(["prepare", "--clips", str(clips_dir), "--corpus", str(tmp_path)])
        monkeypatch.undo()
    assert (code, capsys.readouterr().err) == (1, message)
    assert (tmp_path / "index.json").is_file()


def test_a_closed_standard_output_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["negatives", str(tmp_path / "speech")]) == 1
    assert capsys.readouterr().err == (
        "earmark-train: the results cannot be written: standard output is closed\n"
    )
    assert not list(tmp_path.iterdir())
