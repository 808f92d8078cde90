"""Terminal control sequences in names of files and texts of servers: they are escaped in all output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import soundfile
from earmark_cli.output.console import printable
from earmark_cli.output.labelled_recording import LabelledRecording
from earmark_client import Detection
from hypothesis import given
from hypothesis import strategies as st
from support.earmark_command import RATE_HZ, earmark, json_lines, python_process, samples
from support.misbehaving_server import MisbehavingServer, detection, ended, misbehaving_server, started
from support.virtual_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.misbehaving_server import Response

# Set the title, clear the screen, print in red, delete, an 8-bit control, reverse the text.
HOSTILE = "\x1b]0;TITLE\x07\x1b[2J\x1b[31mred\x7f\x9b\u202e"
ESCAPED = r"\x1b]0;TITLE\x07\x1b[2J\x1b[31mred\x7f\x9b\u202e"
KEYWORD = f"yes{HOSTILE}\n"


def _detects(_: MisbehavingServer, __: Any) -> Iterator[Response]:
    yield started(KEYWORD)
    yield detection(KEYWORD, detection_id=HOSTILE)
    yield ended()


def _rejects(_: MisbehavingServer, context: Any) -> Iterator[Response]:
    yield started()
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"rejected: {HOSTILE}")


@pytest.fixture
def hostile_recording(tmp_path: Path) -> Path:
    path = tmp_path / f"{HOSTILE}\n[red]$x.wav"
    soundfile.write(path, samples(), RATE_HZ)
    return path


def _is_harmless(output: str) -> bool:
    return printable(output.replace("\n", "")) == output.replace("\n", "")


@given(st.text())
def test_printable_text_has_no_control_characters_and_is_otherwise_unchanged(text: str) -> None:
    result = printable(text)
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in result)
    assert printable(result) == result
    if text.isprintable():
        assert result == text


def test_keywords_and_file_names(hostile_recording: Path) -> None:
    with misbehaving_server(_detects) as server:
        done = earmark("spot", hostile_recording, hostile_recording, "--server", server.address)
        as_json = earmark("spot", hostile_recording, "--json", "--server", server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert _is_harmless(done.stdout)
    assert f"yes{ESCAPED}\\n" in done.stdout
    assert ESCAPED in done.stdout.splitlines()[-1]
    assert _is_harmless(as_json.stdout)
    assert [line["keyword"] for line in json_lines(as_json.stdout) if line["type"] == "detection"] == [
        KEYWORD
    ]
    assert json_lines(as_json.stdout)[0]["source"] == str(hostile_recording)


def test_error_messages(hostile_recording: Path, tmp_path: Path) -> None:
    with misbehaving_server(_rejects) as server:
        for arguments in ([], ["--json"]):
            done = earmark("spot", hostile_recording, "--server", server.address, *arguments)
            assert done.returncode == 1
            assert done.stderr == f"earmark: rejected: {ESCAPED}\n"
            assert _is_harmless(done.stdout)
    for arguments in (
        ["spot", tmp_path / f"absent{HOSTILE}"],
        ["classify", tmp_path / f"absent{HOSTILE}"],
        ["plot", tmp_path / f"absent{HOSTILE}"],
        ["tune", tmp_path / f"absent{HOSTILE}"],
        ["spot", "x.wav", f"--unknown{HOSTILE}"],
        [HOSTILE],
        ["health", "--server", HOSTILE],
    ):
        done = earmark(*arguments, "--server", "127.0.0.1:1")
        assert done.returncode in {1, 2}
        assert "TITLE" in done.stderr
        assert _is_harmless(done.stdout + done.stderr)


def test_the_live_display(hostile_recording: Path) -> None:
    def behaviour(server: MisbehavingServer, context: Any) -> Iterator[Response]:
        yield started(KEYWORD)
        yield detection(KEYWORD)
        if server.calls == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, HOSTILE)
        server.wait()

    with (
        misbehaving_server(behaviour) as server,
        Terminal(
            "spot", hostile_recording, "--pace", "--server", server.address, columns=160, lines=30
        ) as terminal,
    ):
        terminal.wait_for(lambda text: "was lost" in text)
        text = terminal.wait_for(lambda text: f"yes{ESCAPED}" in text)
        terminal.type("\x03")
        terminal.wait()
    assert ESCAPED in text
    for sequence in (b"\x1b]0;", b"\x1b[2J", b"\x1b[31mred", b"\x7f", HOSTILE[-2:].encode()):
        assert sequence not in terminal.raw


def test_labels_and_cue_points(tmp_path: Path) -> None:
    with LabelledRecording(tmp_path / "audio.wav", sample_rate_hz=RATE_HZ) as recording:
        list(recording.record([bytes(3200)]))
        recording.add_label(Detection(f"yes\t\n{HOSTILE}", 0.9, 0.0, 0.1, "id"))
    assert (tmp_path / "audio.txt").read_text() == f"0.000\t0.100\tyes\\t\\n{ESCAPED} 0.90\n"
    assert b"\x1b" not in (tmp_path / "audio.wav").read_bytes()


def test_images_and_pages(hostile_recording: Path, address: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("plot.png", "plot.html"):
        done = earmark("plot", hostile_recording, "-o", tmp_path / name, "--server", address)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert _is_harmless(done.stderr)


def test_the_microphone_s_name() -> None:
    done = python_process(
        "from earmark_cli.output.printer import JsonPrinter, TextPrinter\n"
        "from earmark_client import InputDevice\n"
        f"device = InputDevice(0, {HOSTILE!r}, 1, 48_000, True)\n"
        "TextPrinter().device(device)\n"
        "JsonPrinter().device(device)\n"
    )
    assert done.stderr == ""
    assert _is_harmless(done.stdout)
    assert json.loads(done.stdout.splitlines()[1])["name"] == HOSTILE
