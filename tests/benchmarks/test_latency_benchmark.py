from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import latency

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # it runs the benchmark


def test_percentiles_are_in_order_and_every_detection_is_received(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    recording = benchmark_rig.words(tmp_path)
    done = benchmark_rig.run(
        "latency", "--model", tiny_model_path, "--recording", recording, "--seconds", "4"
    )
    assert done.code == 0, done.err
    header, (line,) = done.table()
    assert header[0] == "detections, received / expected"
    assert line[0] == "6 / 6"
    latencies_ms = [float(cell) for cell in line[1:5]]
    assert latencies_ms[0] > 0
    assert latencies_ms == sorted(latencies_ms)


def test_a_lost_detection_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert latency.main([*options, "--seconds", "1"]) == 1
    assert "a detection that no server sends was lost" in capsys.readouterr().err
