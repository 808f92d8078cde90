from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import soundfile
import tiny_model

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 90

HEADER = [
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "delay p50, ms",
    "delay p99, ms",
    "delay max, ms",
    "memory per stream, KB",
    "detections, got / expected",
    "sent late p99, ms",
]


def _benchmark(tiny_model_path: Path, recording: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.streams",
        "--model",
        tiny_model_path,
        "--recording",
        recording,
    ]
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def _words(tmp_path: Path, words: list[tuple[float, str]]) -> Path:
    path = tmp_path / "words.wav"
    soundfile.write(path, tiny_model.recording(words, 2.0), tiny_model.RATE_HZ, subtype="PCM_16")
    return path


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_stream_gets_its_detections_and_the_table_says_what_they_cost(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    words = _words(tmp_path, [(0.3, "low"), (0.8, "high"), (1.5, "mid")])
    result = _benchmark(tiny_model_path, words, "--streams", "3", "--seconds", "2.5")
    assert result.returncode == 0, result.stderr
    facts, blank, *table = result.stdout.splitlines()
    assert " cores " in facts
    assert "onnxruntime" in facts
    assert not blank
    header, rule, row = (_cells(line) for line in table)
    assert header == HEADER
    assert rule == ["---:"] * len(HEADER)
    assert row[0] == "3"
    # 2.5 s from any place of this loop have three words or more.
    got, expected = (int(number) for number in row[7].split("/"))
    assert got == expected >= 9
    delay_ms = [float(cell) for cell in row[3:6]]
    assert 0 < delay_ms[0] <= delay_ms[1] <= delay_ms[2]
    assert float(row[2]) > 0
    assert float(row[8]) >= 0
    if sys.platform == "linux":
        assert float(row[1]) > 0
        float(row[6])


def test_a_load_in_which_nothing_can_be_heard_is_no_success(tiny_model_path: Path, tmp_path: Path) -> None:
    result = _benchmark(tiny_model_path, _words(tmp_path, []), "--streams", "1", "--seconds", "0.5")
    assert result.returncode == 1
    assert "nothing was checked" in result.stderr
    assert "0 / 0" in result.stdout
