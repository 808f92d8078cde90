"""`earmark listen` with a real audio server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from earmark_client import SyncClient
from support.virtual_microphone import RATE_HZ
from support.virtual_terminal import Terminal

if TYPE_CHECKING:
    from support.virtual_microphone import Microphone

SAMPLES = Path(__file__).parents[2] / "client" / "earmark_cli" / "samples"


def _listen(
    microphone: Microphone, samples: np.ndarray, keywords: int, *args: str
) -> tuple[int, list[dict[str, Any]], str]:
    """Play the samples while `earmark listen` runs, and interrupt it after a number of detections."""
    with subprocess.Popen(
        [sys.executable, "-m", "earmark_cli", "listen", "--json", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=microphone.environment,
    ) as process:
        # The reads below block until a line arrives; this is the deadline for all of them.
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            notice = process.stderr.readline()
            microphone.play(samples)
            lines: list[dict[str, Any]] = []
            for text in process.stdout:
                lines.append(json.loads(text))
                if sum(line["type"] == "detection" for line in lines) == keywords:
                    break
            process.send_signal(signal.SIGINT)
            lines += [json.loads(text) for text in process.stdout]
            assert process.stderr.read() == ""
            return process.wait(), lines, notice
        finally:
            deadline.cancel()
            process.kill()


def test_keywords_from_a_microphone_are_detected_and_recorded(
    microphone: Microphone, tiny_model_path: Path, tmp_path: Path
) -> None:
    from earmark_server.embedded import serve_in_thread
    from support import tiny_model

    words = [(0.5, "low"), (1.5, "high"), (2.5, "mid")]
    samples = tiny_model.recording(words, 3.0) * 32768
    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        kept = tmp_path / "kept.wav"
        code, lines, notice = _listen(microphone, samples, 3, "--server", address, "--record", str(kept))
    assert code == 130
    assert notice == "Recording from default (44100 Hz); Ctrl-C stops. Keywords: low, mid, high\n"
    started, *found, ended = lines
    assert started["type"] == "started"
    assert [line["keyword"] for line in found] == ["low", "high", "mid"]
    first_s = found[0]["start_s"]
    for line, (start_s, _) in zip(found, words, strict=True):
        assert line["start_s"] - first_s == pytest.approx(start_s - words[0][0], abs=0.1)
    assert (ended["type"], ended["interrupted"], ended["detections"]) == ("ended", True, 3)
    assert ended["audio_s"] >= found[-1]["end_s"]
    # The same audio has the same detections.
    assert soundfile.info(kept).duration == pytest.approx(ended["audio_s"], abs=1e-4)
    with serve_in_thread(model=(str(tiny_model_path),)) as address, SyncClient(address) as client:
        again = client.spot(kept).detections
    assert [(one.keyword, round(one.start_s, 4)) for one in again] == [
        (line["keyword"], line["start_s"]) for line in found
    ]
    labels = [line.split("\t") for line in kept.with_suffix(".txt").read_text().splitlines()]
    assert [(float(start), text.split()[0]) for start, _, text in labels] == [
        (round(line["start_s"], 3), line["keyword"]) for line in found
    ]


@pytest.mark.slow
def test_a_microphone_stream_survives_its_server(microphone: Microphone, tiny_model_path: Path) -> None:
    from support import tiny_model
    from support.restartable_server import RestartableServer

    words = [(0.5 + i, ("low", "high", "mid")[i % 3]) for i in range(8)]
    with (
        RestartableServer(tiny_model_path) as server,
        subprocess.Popen(
            [sys.executable, "-m", "earmark_cli", "listen", "--json", "--server", server.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=microphone.environment,
        ) as process,
    ):
        deadline = threading.Timer(60, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert "Recording" in process.stderr.readline()
            microphone.play(tiny_model.recording(words, 8.5) * 32768)
            lines: list[dict[str, Any]] = []
            for text in process.stdout:
                lines.append(json.loads(text))
                found = [line for line in lines if line["type"] == "detection"]
                if len(found) == 2 and lines[-1] is found[-1]:
                    server.kill()
                    server.start()
                if len(found) == len(words):
                    break
            process.send_signal(signal.SIGINT)
            lines += [json.loads(text) for text in process.stdout]
            notices = process.stderr.read().splitlines()
            assert process.wait() == 130
        finally:
            deadline.cancel()
            process.kill()
    assert [line["type"] for line in lines] == ["started", *["detection"] * len(words), "ended"]
    assert [line["keyword"] for line in lines[1:-1]] == [word for _, word in words]
    first_s = lines[1]["start_s"]
    for line, (start_s, _) in zip(lines[1:-1], words, strict=True):
        assert line["start_s"] - first_s == pytest.approx(start_s - words[0][0], abs=0.1)
    assert len(notices) == 2, notices
    assert "trying to resume" in notices[0]
    assert "nothing was lost" in notices[1]


@pytest.mark.slow
def test_a_microphone_stream_is_displayed_on_a_terminal(
    microphone: Microphone, tiny_model_path: Path
) -> None:
    from earmark_server.embedded import serve_in_thread
    from support import tiny_model

    with (
        serve_in_thread(model=(str(tiny_model_path),)) as address,
        Terminal("listen", "--server", address, **microphone.own) as terminal,
    ):
        terminal.wait_for(lambda text: "● connected  delay" in text and "silent" in text)
        # The noise is long, so that the level is still displayed when a busy machine shows the detection.
        microphone.play(tiny_model.recording([(0.5, "low")], 90.0, noise=3e-3) * 32768)
        text = terminal.wait_for(lambda text: "1 detection " in text and "dB" in text)
        assert "Recording from default (44100 Hz); Ctrl-C stops. Keywords: low, mid, high" in text
        terminal.type("\x03")
        assert terminal.wait() == 130
    assert " s of audio, 1 detection, took " in terminal.text
    assert terminal.text.endswith("interrupted")


@pytest.mark.slow
def test_it_stops_after_the_duration(microphone: Microphone, tiny_model_path: Path) -> None:
    from earmark_server.embedded import serve_in_thread

    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "earmark_cli",
                "listen",
                "--json",
                "--duration",
                "1",
                "--server",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env=microphone.environment,
            check=False,
        )
    assert done.returncode == 0
    ended = json.loads(done.stdout.splitlines()[-1])
    assert ended["audio_s"] == pytest.approx(1.0, abs=0.1)
    assert ended["interrupted"] is False


@pytest.mark.slow
def test_an_unplugged_microphone_is_waited_for(microphone: Microphone, tiny_model_path: Path) -> None:
    from earmark_server.embedded import serve_in_thread

    with (
        serve_in_thread(model=(str(tiny_model_path),)) as address,
        subprocess.Popen(
            [sys.executable, "-m", "earmark_cli", "listen", "--json", "--server", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=microphone.environment,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.readline()
        microphone.unplug()
        lost = process.stderr.readline()
        while "waiting until it is connected again" not in lost:  # PortAudio may print its own messages
            assert lost
            lost = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert json.loads(out.splitlines()[-1])["interrupted"] is True
    assert process.returncode == 130


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pactl") is None, reason="no pactl: on Debian, install pulseaudio-utils")
def test_a_microphone_that_is_plugged_in_again_goes_on_at_the_right_offset(
    microphone: Microphone, tiny_model_path: Path
) -> None:
    from earmark_server.embedded import serve_in_thread
    from support import tiny_model

    with (
        serve_in_thread(model=(str(tiny_model_path),)) as address,
        subprocess.Popen(
            [sys.executable, "-m", "earmark_cli", "listen", "--json", "--server", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=microphone.environment,
        ) as process,
    ):
        deadline = threading.Timer(120, process.kill)
        deadline.start()
        assert process.stdout is not None
        assert process.stderr is not None
        assert "Recording" in process.stderr.readline()
        found = []
        for word in ("low", "high"):
            microphone.play(tiny_model.recording([(0.5, word)], 1.0) * 32768)
            while (line := json.loads(process.stdout.readline()))["type"] != "detection":
                pass
            found.append((line["keyword"], line["end_s"], time.monotonic()))
            if word == "low":
                microphone.unload()
                time.sleep(8)  # longer than a device may record nothing
                microphone.load()
                for text in ("waiting until it is connected again", "the microphone is back"):
                    while text not in (notice := process.stderr.readline()):
                        assert notice
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        deadline.cancel()
    (first, first_s, first_seen), (second, second_s, second_seen) = found
    assert (first, second) == ("low", "high")
    assert second_s - first_s == pytest.approx(second_seen - first_seen, abs=1.5)


@pytest.mark.slow
def test_the_bundled_model_detects_keywords_from_the_microphone(microphone: Microphone) -> None:
    """As a new user would run it: no server, the bundled model, real words."""
    samples, rate_hz = soundfile.read(SAMPLES / "demo.flac", dtype="int16")
    assert rate_hz == RATE_HZ
    said = json.loads((SAMPLES / "demo.json").read_text())["said"][:4]
    keywords = [line["keyword"] for line in said if line["keyword"]]
    part = samples[: round(said[-1]["end_s"] * RATE_HZ)]
    code, lines, _ = _listen(microphone, part, len(keywords))
    assert code == 130
    assert [line["keyword"] for line in lines if line["type"] == "detection"] == keywords


@pytest.mark.slow
def test_takes_of_a_keyword_are_recorded(microphone: Microphone, tmp_path: Path) -> None:
    """People repeat a word; one take is clipped, and one is of another word."""
    samples, _ = soundfile.read(SAMPLES / "demo.flac", dtype="float32")
    said = [line for line in json.loads((SAMPLES / "demo.json").read_text())["said"] if line["keyword"]]
    parts = {
        line["keyword"]: samples[int(line["start_s"] * RATE_HZ) : int(line["end_s"] * RATE_HZ)]
        for line in said
    }
    scale = {word: 0.4 / np.abs(part).max() for word, part in parts.items()}
    forward, zero = (parts[word] * scale[word] for word in ("forward", "zero"))
    folder = tmp_path / "forward"
    command = [sys.executable, "-m", "earmark_cli", "record-keyword", "forward", "--out", str(folder)]

    def record(takes: int, words: list[np.ndarray]) -> tuple[int, list[str]]:
        quiet = np.zeros(RATE_HZ // 2, np.float32)
        remaining = iter(words)
        lines: list[str] = []
        with subprocess.Popen(
            [*command, "--takes", str(takes)], stdout=subprocess.PIPE, text=True, env=microphone.environment
        ) as process:
            deadline = threading.Timer(90, process.kill)
            deadline.start()
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                if ": say " in line and (word := next(remaining, None)) is not None:
                    microphone.play(np.concatenate([quiet, word, quiet, quiet]) * 32767)
                elif ": say " in line:
                    process.send_signal(signal.SIGINT)
            deadline.cancel()
        return process.returncode, lines

    code, lines = record(30, [forward, np.clip(6 * forward, -1, 1), 0.7 * forward, 0.5 * forward, zero])
    assert code == 130, lines
    assert [line.split(": ")[2] for line in lines if "not kept" in line] == [
        "it is clipped",
        "it does not sound like the others",
    ]
    assert lines[-1] == f"{folder} has 3 of 30 takes: run the command again to go on"
    code, lines = record(4, [0.6 * forward] * 3)
    assert code == 0, lines
    assert lines[0] == f"{folder} has 3 takes already"
    assert "earmark-train keyword forward --recordings" in lines[-1]
    # Of two takes that a busy machine has disturbed alike, the second one makes the command keep both.
    names = [path.name for path in sorted(folder.iterdir())]
    assert names in [[f"forward-{n:03d}.wav" for n in range(1, last + 1)] for last in (4, 5)]
