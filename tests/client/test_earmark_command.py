"""The `earmark` command, as a person or a script meets it: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
import tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATE_HZ = 16_000
WORDS = [(0.5, "low"), (1.5, "mid"), (2.5, "high")]
SECONDS = 4.0


def _samples() -> np.ndarray:
    return (tiny_model.recording(WORDS, SECONDS) * 32768).round().astype("<i2")


def _environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EARMARK_", "GRPC_"))}
    return {**kept, "COLUMNS": "100", **variables}


def _earmark(*args: str | Path, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command; whatever happens, there is no traceback, and gRPC is quiet."""
    done = subprocess.run(
        [sys.executable, "-m", "earmark_client", *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=60,
        env=_environment(**variables),
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    assert not re.search(r"^[EWI]\d{4} |_cython|\.cc:\d+", err, re.MULTILINE), err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@contextmanager
def _running(*args: str | Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command while the block runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "earmark_client", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(**variables),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _json_lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recordings") / "words.wav"
    soundfile.write(path, _samples(), RATE_HZ)
    return path


def test_a_recording_is_marked_for_people(address: str, recording: Path) -> None:
    done = _earmark("spot", recording, "--server", address)
    assert (done.returncode, done.stderr) == (0, "")
    *found, summary = done.stdout.splitlines()
    assert [line.split()[5] for line in found] == ["low", "mid", "high"]
    assert re.fullmatch(r" +0\.\d\d s \N{EN DASH} 0\.\d\d s  low   [01]\.\d\d", found[0])
    assert re.fullmatch(
        re.escape(str(recording))
        + r": 4\.00 s of audio, 3 detections, took \d+\.\d\d s \(\d+\.\d times real time\)",
        summary,
    )


def test_json_lines_have_stable_names(address: str, recording: Path) -> None:
    done = _earmark("spot", recording, "--server", address, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    started, *found, ended = _json_lines(done.stdout)
    assert {**started, "request_id": ""} == {
        "type": "started",
        "source": str(recording),
        "model": "tiny",
        "model_version": "1.0.0",
        "keywords": [
            {"keyword": word, "threshold": 0.6, "refractory_s": 0.5} for word in ("low", "mid", "high")
        ],
        "step_s": 0.02,
        "receptive_field_s": 0.07,
        "request_id": "",
    }
    for line, (start_s, word) in zip(found, WORDS, strict=True):
        assert list(line) == ["type", "source", "keyword", "confidence", "start_s", "end_s", "id"]
        assert (line["type"], line["source"], line["keyword"]) == ("detection", str(recording), word)
        assert line["start_s"] == pytest.approx(start_s, abs=0.1)
        assert line["start_s"] < line["end_s"]
        assert 0.6 < line["confidence"] <= 1
    assert list(ended) == ["type", "source", "audio_s", "detections", "elapsed_s", "interrupted", "speed"]
    assert (ended["type"], ended["audio_s"], ended["detections"]) == ("ended", 4.0, 3)
    assert ended["interrupted"] is False


def test_the_pace_changes_nothing_but_the_time(address: str, recording: Path) -> None:
    fast = _json_lines(_earmark("spot", recording, "--server", address, "--json").stdout)
    paced = _json_lines(_earmark("spot", recording, "--server", address, "--json", "--pace").stdout)
    assert paced[1:-1] == fast[1:-1]
    assert paced[-1]["elapsed_s"] == pytest.approx(SECONDS, abs=1.0)
    assert fast[-1]["elapsed_s"] < 2.0


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_other_containers_rates_and_channels_are_marked_the_same(
    address: str, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"words.{suffix}"
    samples = tiny_model.recording(WORDS, SECONDS, rate_hz=44_100)
    soundfile.write(path, np.stack([samples, samples], axis=1), 44_100)
    done = _earmark("spot", path, "--server", address, "--json")
    assert [line["keyword"] for line in _json_lines(done.stdout)[1:-1]] == ["low", "mid", "high"]


def test_raw_samples_come_on_standard_input(address: str) -> None:
    stereo_float = np.repeat(tiny_model.recording(WORDS, SECONDS, rate_hz=48_000), 2).astype("<f4")
    for data, form in [
        (_samples().tobytes(), []),
        (stereo_float.tobytes(), ["--rate", "48000", "--encoding", "float32", "--channels", "2"]),
    ]:
        done = _earmark("spot", "-", "--server", address, "--json", *form, stdin=data)
        *_, ended = lines = _json_lines(done.stdout)
        assert [line["keyword"] for line in lines[1:-1]] == ["low", "mid", "high"]
        assert (ended["source"], ended["audio_s"]) == ("-", 4.0)


def test_keywords_are_chosen(address: str, recording: Path) -> None:
    done = _earmark(
        "spot", recording, "--server", address, "--json", "--keyword", "mid", "--keyword", "high=0.75"
    )
    started, *found, _ = _json_lines(done.stdout)
    assert {one["keyword"]: one["threshold"] for one in started["keywords"]} == {"mid": 0.6, "high": 0.75}
    assert [line["keyword"] for line in found] == ["mid", "high"]


def test_one_bad_recording_does_not_keep_the_others_from_being_marked(
    address: str, recording: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    done = _earmark("spot", text, recording, tmp_path / "absent.wav", "--server", address)
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == str(recording)
    assert "3 detections" in done.stdout
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [
        str(text),
        str(tmp_path / "absent.wav"),
    ]
    lines = _json_lines(_earmark("spot", text, recording, "--server", address, "--json").stdout)
    assert list(lines[0]) == ["type", "source", "message", "status", "reason"]
    assert (lines[0]["type"], lines[0]["source"]) == ("error", str(text))
    assert lines[-1]["type"] == "ended"


@pytest.mark.parametrize("command", ["spot", "classify"])
def test_a_file_that_is_no_recording_is_said(address: str, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound\n" * 1000)
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), RATE_HZ)
    for name in ["absent.wav", "", "empty.wav", "text.wav", "nothing.wav"]:
        done = _earmark(command, tmp_path / name, "--server", address)
        assert (done.returncode, done.stdout) == (1, ""), name
        assert done.stderr.startswith("earmark: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no audio"),
        (b"\x00", "sample"),
        (bytes(32_001), "sample"),
        (b"RIFF" + bytes(1000), "WAV"),
    ],
)
def test_bad_raw_samples_are_said(address: str, data: bytes, sentence: str) -> None:
    done = _earmark("spot", "-", "--server", address, stdin=data)
    assert done.returncode == 1
    assert sentence in done.stderr


def test_nan_in_raw_floats_is_said_by_the_server(address: str) -> None:
    data = np.array([0.0, np.nan], "<f4").tobytes()
    done = _earmark("spot", "-", "--encoding", "float32", "--server", address, stdin=data)
    assert done.returncode == 1
    assert re.search("NaN|finite", done.stderr)


def test_an_unknown_keyword_or_model_is_said_by_the_server(address: str, recording: Path) -> None:
    done = _earmark("spot", recording, "--keyword", "hello", "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "hello" in done.stderr
    done = _earmark("spot", recording, "--model", "other", "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    assert "other" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["spot"],
        ["classify"],
        ["sing"],
        ["spot", "x.wav", "--keyword", "stop=1.5"],
        ["spot", "x.wav", "--keyword", "stop=loud"],
        ["spot", "x.wav", "--keyword", "=0.5"],
        ["spot", "x.wav", "--keyword", "stop=nan"],
        ["spot", "-", "--channels", "0"],
        ["spot", "-", "--channels", "9"],
        ["spot", "-", "--rate", "0"],
        ["spot", "-", "--rate", "99999999999"],
        ["spot", "-", "--rate", "16k"],
        ["spot", "-", "--encoding", "mp3"],
        ["spot", "x.wav", "--server", "http://localhost:1"],
        ["listen", "--duration", "0"],
        ["health", "--server", ":1"],
    ],
)
def test_wrong_usage_is_said_with_the_right_one(args: list[str]) -> None:
    done = _earmark(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: earmark")
    assert "error: " in done.stderr


@pytest.mark.parametrize(
    "args",
    [["spot", "{recording}"], ["classify", "{recording}"], ["models"], ["health"], ["health", "--watch"]],
)
def test_a_server_that_is_not_there_is_said_fast(recording: Path, args: list[str]) -> None:
    filled = [arg.format(recording=recording) for arg in args]
    done = _earmark(*filled, "--server", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1" in done.stderr
    assert "earmark-server" in done.stderr


def test_the_server_may_be_named_by_the_environment(address: str) -> None:
    assert _earmark("health", EARMARK_SERVER=address).stdout == f"{address}: SERVING\n"
    assert _earmark("health", "--server", address, EARMARK_SERVER="127.0.0.1:1").returncode == 0
    assert _earmark("health", EARMARK_SERVER="no address").returncode == 2


def test_clips_are_named(address: str, tmp_path: Path) -> None:
    for word in ("low", "high"):
        clip = (tiny_model.recording([(0.3, word)], 0.6) * 32768).astype("<i2")
        soundfile.write(tmp_path / f"{word}.flac", clip, RATE_HZ)
    done = _earmark("classify", tmp_path / "low.flac", tmp_path / "high.flac", "--server", address)
    assert (done.returncode, done.stderr) == (0, "")
    low, high = done.stdout.splitlines()
    assert re.fullmatch(
        re.escape(str(tmp_path / "low.flac")) + r": low [01]\.\d\d  \(\w+ 0\.\d\d, \w+ 0\.\d\d\)", low
    )
    assert ": high " in high
    done = _earmark("classify", tmp_path / "low.flac", "--server", address, "--json", "--top", "2")
    (line,) = _json_lines(done.stdout)
    assert list(line) == [
        *("type", "source", "label", "scores", "audio_s", "processing_s", "model", "model_version")
    ]
    assert (line["type"], line["label"], len(line["scores"])) == ("classification", "low", 2)


def test_models_are_listed(address: str) -> None:
    done = _earmark("models", "--server", address)
    assert done.returncode == 0
    assert done.stdout.startswith("tiny 1.0.0 (default)\n")
    assert "low (0.60), mid (0.60), high (0.60)" in done.stdout
    (line,) = _json_lines(_earmark("models", "--server", address, "--json").stdout)
    assert list(line) == [
        *("type", "name", "version", "default", "keywords", "labels", "sample_rate_hz", "step_s"),
        *("receptive_field_s", "metrics", "training_sources", "training_commit", "sha256"),
    ]


def test_health_is_said_for_programs_too(address: str) -> None:
    done = _earmark("health", "--server", address, "--json")
    assert _json_lines(done.stdout) == [{"type": "health", "server": address, "status": "SERVING"}]


def test_a_reader_that_goes_away_ends_the_command_quietly(address: str, recording: Path) -> None:
    with _running("spot", *[recording] * 50, "--server", address) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.parametrize("args", ["spot - --json", "spot {} --pace --json"])
def test_an_interrupt_ends_it_with_a_summary_and_130(address: str, recording: Path, args: str) -> None:
    with _running(*args.format(recording).split(), "--server", address) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_samples()[:RATE_HZ].tobytes())
        process.stdin.flush()
        assert b"started" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        # Its standard input stays open: it must not wait for more of it.
        assert process.wait(30) == 130
        *_, ended = _json_lines(process.stdout.read().decode())
        assert (ended["type"], ended["interrupted"]) == ("ended", True)
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_a_health_watch_is_ended_by_an_interrupt(address: str) -> None:
    with _running("health", "--watch", "--server", address) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b": SERVING\n")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 130


@pytest.mark.parametrize("command", ["", "spot", "demo", "listen", "classify", "models", "health"])
def test_help_fits_a_terminal_and_says_what_for(command: str) -> None:
    done = _earmark(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: earmark")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "HOST:PORT" in done.stdout or not command
    for name in ["spot", "listen", "classify", "models", "health", "exit codes"]:
        assert name in done.stdout or command


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"earmark \d+\.\d+\.\d+\n", _earmark("--version").stdout)
