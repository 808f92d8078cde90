from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import throughput

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="processes are bound to cores on Linux"),
    pytest.mark.slow,  # it runs the benchmark
]


def _options(tiny_model_path: Path, recording: Path) -> list[str]:
    return [
        "--model", str(tiny_model_path), "--recording", str(recording), "--seconds", "20",
        "--recordings", "5", "--recording-seconds", "8", "--at-once", "3", "--workers", "2",
    ]  # fmt: skip


def test_one_recording_and_an_archive_are_measured_with_both_rpcs(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    done = benchmark_rig.run("throughput", *_options(tiny_model_path, benchmark_rig.words(tmp_path)))
    assert done.code == 0, done.err
    header, lines = done.table()
    assert header[6] == "throughput, x real time"
    assert [(line[0], line[1], line[2], line[4]) for line in lines] == [
        ("one recording", "StreamingSpot", "1", "20"),
        ("one recording", "Spot", "1", "20"),
        ("5 recordings", "StreamingSpot", "3", "40"),
        ("5 recordings", "Spot", "3", "40"),
    ]
    assert [line[8] for line in lines] == ["30 / 30", "30 / 30", "60 / 60", "60 / 60"]
    for line in lines:
        assert float(line[6]) > 0
        assert float(line[7]) > 0


def test_a_lost_detection_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    assert throughput.main(_options(tiny_model_path, benchmark_rig.words(tmp_path))) == 1
    problems = capsys.readouterr().err.split("\n")
    assert "one recording, StreamingSpot: a detection that no server sends was lost" in problems
    assert "5 recordings, Spot: a detection that no server sends was lost (5 times)" in problems
