from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import fairness

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # it runs the benchmark


def test_streams_are_measured_with_and_without_a_full_speed_client(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    done = benchmark_rig.run(
        "fairness", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "3", "--seconds", "2",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, (alone, loaded) = done.table()
    assert header[-1] == "throughput of the full-speed client, x real time"
    assert alone[0] == "3 streams alone"
    assert alone[-1] == "n/a"
    # At real time or below, the client would not be a load.
    assert float(loaded[-1]) > 1
    for line in (alone, loaded):
        received, expected = (int(number) for number in line[4].split("/"))
        assert received == expected >= 9


def test_a_lost_detection_is_reported_also_for_the_full_speed_client(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert fairness.main([*options, "--streams", "1", "--seconds", "1"]) == 1
    problems = capsys.readouterr().err.split("\n")
    assert "alone: a detection that no server sends was lost" in problems
    assert "the full-speed client: a detection that no server sends was lost" in problems
