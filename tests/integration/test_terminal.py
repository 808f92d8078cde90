"""The display of `earmark` on a terminal: a real pty, and the speech of the bundled recording."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_server.embedded import serve_in_thread
from support.environment import ADMIT_ALWAYS
from support.paths import DEMO
from support.restartable_server import RestartableServer
from support.virtual_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DETECTION = re.compile(r"^ +\d+\.\d\d s \N{EN DASH} \d+\.\d\d s  (\w+) +[01]\.\d\d$", re.MULTILINE)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serve_in_thread(**ADMIT_ALWAYS) as address:
        yield address


def _speech(until_s: float) -> bytes:
    samples, rate_hz = soundfile.read(DEMO, dtype="int16")
    assert rate_hz == 16_000
    return samples[: round(until_s * rate_hz)].tobytes()


def _after_yes(text: str) -> bool:
    """Return whether the second keyword is detected and the display below it is complete."""
    return DETECTION.findall(text) == ["no", "yes"] and "delay" in text and text.count("┃") == 4


def test_the_display_shows_state_level_scores_and_latency_below_the_detections(address: str) -> None:
    with Terminal("spot", "-", "--server", address) as terminal:
        terminal.stdin.write(_speech(3.2))
        terminal.stdin.flush()
        text = terminal.wait_for(_after_yes)
        assert re.search(r"● connected  delay \d+ ms  2 detections  0:03  -$", text, re.MULTILINE), text
        assert re.search(r"^  level +[━─]{30} -\d+ dB$", text, re.MULTILINE), text
        scores = re.findall(r"^  (\w+) +([━─┃]{30}) ([01]\.\d\d)$", text, re.MULTILINE)
        assert len(scores) == 4
        assert scores[0][0] == "yes"
        assert [value for *_, value in scores] == sorted((value for *_, value in scores), reverse=True)
        # Ctrl-C removes the live part; the plain lines remain.
        terminal.type("\x03")
        assert terminal.wait() == 130
        *found, summary = terminal.text.replace("^C", "").splitlines()
        assert [DETECTION.findall(line) for line in found if line] == [["no"], ["yes"]]
        assert re.fullmatch(r"-: [23]\.\d\d s of audio, 2 detections, took .*, interrupted", summary)
        assert not terminal.screen.cursor.hidden


@pytest.mark.slow
def test_a_recording_shows_its_progress_and_only_its_lines_remain(address: str, tmp_path: Path) -> None:
    long = tmp_path / "long.flac"
    samples, rate_hz = soundfile.read(DEMO, dtype="int16")
    soundfile.write(long, np.tile(samples, 20), rate_hz)
    with Terminal("spot", DEMO, long, "--server", address, "--keyword", "go", columns=160) as terminal:
        terminal.wait_for(
            re.compile(r"[━─]+ +\d+%  \d+:\d\d of 7:37  \d+ times real time, \d+:\d\d left").search
        )
        assert terminal.wait() == 0
    last = terminal.text.splitlines()
    assert re.search(r"long\.flac: 457\.60 s of audio, 20 detections, took ", last[-1])
    assert "times real time, " not in terminal.text
    assert DETECTION.findall("\n".join(last[:-1])) == ["go"] * (len(last) - 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "live"),
    [({"NO_COLOR": "1"}, True), ({"PYTHONIOENCODING": "ascii"}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_with_fewer_capabilities_gets_simpler_output(
    address: str, variables: dict[str, str], live: bool
) -> None:
    with Terminal("spot", "-", "--server", address, **variables) as terminal:
        terminal.stdin.write(_speech(3.2))
        terminal.stdin.flush()
        # A live display has the delay as soon as a chunk was scored.
        words = ("yes", "level", "delay") if live else ("yes",)
        text = terminal.wait_for(lambda text: all(word in text for word in words))
        assert ("level" in text) == ("delay" in text) == live
        terminal.stdin.close()
        assert terminal.wait() == 0
    coloured = re.search(rb"\x1b\[[\d;]*3\d[\d;]*m", terminal.raw)
    assert coloured if "PYTHONIOENCODING" in variables else not coloured
    if not live:
        assert b"\x1b" not in terminal.raw
    if "PYTHONIOENCODING" in variables:
        assert terminal.raw.isascii()


def test_a_small_terminal_shows_what_fits(address: str) -> None:
    with Terminal("spot", "-", "--server", address, columns=26, lines=5) as terminal:
        terminal.stdin.write(_speech(1.8))
        terminal.stdin.flush()
        terminal.wait_for(lambda text: "● connected  delay" in text and "  level " in text)
        terminal.type("\x03")
        assert terminal.wait() == 130


def test_the_display_adapts_to_the_size_of_the_terminal(address: str) -> None:
    with Terminal("spot", "-", "--server", address) as terminal:
        terminal.stdin.write(_speech(3.2))
        terminal.stdin.flush()
        terminal.wait_for(_after_yes)
        for columns, bar in [(44, 26), (70, 30)]:
            terminal.resize(columns, 24)
            level = re.compile(rf"^  level +[━─]{{{bar}}} -\d+ dB$", re.MULTILINE)
            # The program draws the screen again: the detections may be absent for a moment.
            terminal.wait_for(
                lambda text, level=level: level.search(text) and DETECTION.findall(text) == ["no", "yes"]
            )
        terminal.stdin.close()
        assert terminal.wait() == 0
    assert ": 3.20 s of audio, 2 detections, took " in terminal.text


@pytest.mark.slow
def test_an_outage_is_displayed_until_it_is_over() -> None:
    with (
        RestartableServer() as server,
        Terminal("spot", "-", "--server", server.address, columns=200) as terminal,
    ):
        audio = _speech(10.0)
        half = 3 * len(audio) // 10 // 2 * 2
        terminal.stdin.write(audio[:half])
        terminal.stdin.flush()
        terminal.wait_for(_after_yes)
        server.kill()
        terminal.stdin.write(audio[half:])
        terminal.stdin.flush()
        terminal.wait_for(
            re.compile(r"trying to resume for 60 s$.*○ reconnecting, attempt \d+: ", re.M | re.S).search
        )
        server.start()
        terminal.wait_for(
            lambda text: "nothing was lost" in text and re.search(r"● resumed after \d+\.\d s", text)
        )
        terminal.stdin.close()
        assert terminal.wait() == 0
    assert DETECTION.findall(terminal.text) == ["no", "yes", "stop", "go", "left", "right"]
    assert ", 6 detections, took" in terminal.text
