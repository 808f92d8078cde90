"""`earmark spot --jobs N`: the results of one process, from several."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
import soundfile
from support import tiny_model
from support.earmark_command import RATE_HZ, Done, earmark, earmark_process, json_lines, running

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    """Write recordings of different lengths, the longest first, and one that cannot be read."""
    paths = [tmp_path / name for name in ("long.wav", "broken.wav", "middle.wav", "short.wav")]
    for path, word, length_s in zip(paths, ("low", "", "mid", "high"), (60.0, 0, 8.0, 2.0), strict=True):
        if word:
            soundfile.write(path, tiny_model.recording([(0.5, word)], length_s), RATE_HZ)
        else:
            path.write_text("no sound")
    return paths


def without_times(done: Done) -> Done:
    output = re.sub(r"took .*|\"(elapsed_s|speed)\": [\d.]+", "", done.stdout)
    return Done(done.returncode, re.sub(r"\"(detection_)?id\": \"[^\"]*\"", "", output), done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_several_processes_print_what_one_prints(
    address: str, recordings: list[Path], options: tuple[str, ...]
) -> None:
    one = earmark_process("spot", *options, "--server", address, *recordings)
    several = earmark_process("spot", *options, "--jobs", "3", "--server", address, *recordings)
    assert several.returncode == 1  # broken.wav
    if options:
        kinds = [(line["type"], line["source"]) for line in json_lines(several.stdout)]
        assert kinds == [(line["type"], line["source"]) for line in json_lines(one.stdout)]
        assert [line["keyword"] for line in json_lines(several.stdout) if line["type"] == "detection"] == [
            "low",
            "mid",
            "high",
        ]
    else:
        assert without_times(several) == without_times(one)


@pytest.mark.slow
def test_without_a_server_each_process_has_its_own(recordings: list[Path]) -> None:
    done = earmark_process("spot", "--jobs", "2", recordings[2], recordings[3])
    assert done.returncode == 0, done.stderr
    assert re.findall(r"(\w+\.wav): [\d.]+ s of audio", done.stdout) == ["middle.wav", "short.wav"]


def test_an_error_that_concerns_all_recordings_is_printed_once(recordings: list[Path]) -> None:
    done = earmark_process("spot", "--jobs", "2", "--server", "127.0.0.1:1", recordings[0], recordings[2])
    assert done.returncode == 1
    assert done.stderr.count("no Earmark server answers at 127.0.0.1:1") == 1


def test_standard_input_is_one_recording() -> None:
    done = earmark("spot", "--jobs", "2", "-")
    assert done.returncode == 2
    assert "--jobs requires files" in done.stderr


def test_an_interrupt_ends_all_processes(address: str, recordings: list[Path]) -> None:
    with running(
        "spot", "--jobs", "2", "--pace", "--server", address, recordings[0], recordings[2]
    ) as process:
        # The processes are streaming when the server knows of them; a recording takes a minute.
        deadline_s = time.monotonic() + 30
        while len(children(process.pid)) < 2 and time.monotonic() < deadline_s:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert b"Traceback" not in process.stderr.read()


def children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()
