from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import chunk_sizes

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # it runs the benchmark


def test_every_chunk_size_has_a_row_and_no_detection_is_lost(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "chunk_sizes", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "2", "--seconds", "2", "--chunk-ms", "0,10,1000", "--byte-seconds", "1",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, lines = done.table()
    assert header[:2] == ["chunk", "streams"]
    assert [line[:2] for line in lines] == [["1 byte", "1"], ["10 ms", "2"], ["1000 ms", "2"]]
    # The first second of the recording has two keywords, the whole recording has three.
    assert [line[6] for line in lines] == ["2 / 2", "6 / 6", "6 / 6"]
    for line in lines:
        assert float(line[3]) > 0
        assert 0 < float(line[4]) <= float(line[5])


def test_a_lost_detection_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert chunk_sizes.main([*options, "--streams", "1", "--seconds", "1", "--chunk-ms", "40"]) == 1
    assert "40 ms: a detection that no server sends was lost" in capsys.readouterr().err
