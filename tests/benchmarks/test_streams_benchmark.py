from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import streams
from benchmarks.loadgen.server_process import running_server

if TYPE_CHECKING:
    from pathlib import Path

HEADER = [
    "streams",
    "server CPU, ms per stream-s",
    "generator CPU, ms per stream-s",
    "latency p50, ms",
    "latency p99, ms",
    "latency max, ms",
    "memory per stream, KB",
    "detections, received / expected",
    "rejected",
    "send lag p99, ms",
    "machine CPU, %",
    "share of the generators, %",
]


def _options(tiny_model_path: Path, recording: Path, count: str, seconds: str) -> list[str | Path]:
    return [
        "--model", tiny_model_path, "--recording", recording, "--streams", count, "--seconds", seconds
    ]  # fmt: skip


@pytest.mark.slow
def test_every_stream_receives_its_detections_and_the_table_shows_the_cost(
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
    # 2.5 s from any position of this loop have at least three keywords.
    received, expected = (int(number) for number in row[7].split("/"))
    assert received == expected >= 9
    latencies_ms = [float(cell) for cell in row[3:6]]
    assert 0 < latencies_ms[0] <= latencies_ms[1] <= latencies_ms[2]
    assert float(row[2]) > 0
    assert row[8] == "0"
    assert float(row[9]) >= 0
    if sys.platform == "linux":
        assert float(row[1]) > 0
        float(row[6])
        assert 0 < float(row[10]) <= 110
        assert 0 <= float(row[11]) <= 100
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_lost_detection_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path), "2", "1")
    assert streams.main([str(option) for option in options]) == 1
    assert "2 streams: a detection that no server sends was lost (2 times)" in capsys.readouterr().err


@pytest.mark.slow
def test_rejected_streams_are_counted_separately(tiny_model_path: Path, tmp_path: Path) -> None:
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path), "5", "2")
    with running_server(tiny_model_path, 2) as server:
        done = benchmark_rig.run("streams", *options, "--server", server.address)
    assert done.code == 0, done.err
    _, (row,) = done.table()
    assert row[8] == "3"
    received, expected = (int(number) for number in row[7].split("/"))
    assert 6 <= received == expected < 9


@pytest.mark.slow
def test_a_load_without_keywords_is_a_failure(tiny_model_path: Path, tmp_path: Path) -> None:
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path, []), "1", "0.5")
    done = benchmark_rig.run("streams", *options)
    assert done.code == 1
    assert "nothing was checked" in done.err
    assert "0 / 0" in done.out


@pytest.mark.slow
def test_the_floor_is_the_cost_of_an_empty_server(tiny_model_path: Path, tmp_path: Path) -> None:
    options = _options(tiny_model_path, benchmark_rig.words(tmp_path), "2", "1.5")
    done = benchmark_rig.run("streams", *options, "--floor")
    assert done.code == 0, done.err
    header, (row,) = done.table()
    assert header == [*HEADER, "empty server, ms per stream-s", "relative to it"]
    server_ms, floor_ms, ratio = (float(row[i]) for i in (1, -2, -1))
    assert floor_ms > 0
    assert abs(ratio - server_ms / floor_ms) < 0.02
