from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from support import benchmark_rig

from benchmarks import streams
from benchmarks.loadgen.server_process import serving

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HEADER = [
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "delay p50, ms",
    "delay p99, ms",
    "delay max, ms",
    "memory per stream, KB",
    "detections, got / expected",
    "refused",
    "sent late p99, ms",
    "machine busy, %",
    "of it generators, %",
]


def _options(tiny_model_path: Path, recording: Path, count: str, seconds: str) -> list[str | Path]:
    return [
        "--model", tiny_model_path, "--recording", recording, "--streams", count, "--seconds", seconds
    ]  # fmt: skip


def test_every_stream_gets_its_detections_and_the_table_says_what_they_cost(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path), "3", "2.5")
    picture = tmp_path / "cost.png"
    done = benchmark_rig.run("streams", *options, "--plot", picture)
    assert done.code == 0, done.err
    facts, blank, *_ = done.out.splitlines()
    assert " cores " in facts
    assert "onnxruntime" in facts
    assert not blank
    header, (row,) = done.table()
    assert header == HEADER
    assert row[0] == "3"
    # 2.5 s from any place of this loop have three words or more.
    got, expected = (int(number) for number in row[7].split("/"))
    assert got == expected >= 9
    delay_ms = [float(cell) for cell in row[3:6]]
    assert 0 < delay_ms[0] <= delay_ms[1] <= delay_ms[2]
    assert float(row[2]) > 0
    assert row[8] == "0"
    assert float(row[9]) >= 0
    if sys.platform == "linux":
        assert float(row[1]) > 0
        float(row[6])
        assert 0 < float(row[10]) <= 110
        assert 0 <= float(row[11]) <= 100
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_lost_detection_is_noticed(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path), "2", "1")
    assert streams.main([str(option) for option in options]) == 1
    assert "2 streams: a detection that is never made was lost (2 times)" in capsys.readouterr().err


def test_refused_streams_are_counted_apart(tiny_model_path: Path, tmp_path: Path) -> None:
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path), "5", "2")
    with serving(tiny_model_path, 2) as server:
        done = benchmark_rig.run("streams", *options, "--server", server.address)
    assert done.code == 0, done.err
    _, (row,) = done.table()
    assert row[8] == "3"
    got, expected = (int(number) for number in row[7].split("/"))
    assert 6 <= got == expected < 9


def test_a_load_in_which_nothing_can_be_heard_is_no_success(tiny_model_path: Path, tmp_path: Path) -> None:
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path, []), "1", "0.5")
    done = benchmark_rig.run("streams", *options)
    assert done.code == 1
    assert "nothing was checked" in done.err
    assert "0 / 0" in done.out
