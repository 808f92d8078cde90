from __future__ import annotations

from typing import TYPE_CHECKING

from support import benchmark_rig

from benchmarks import chunks

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_every_length_has_its_line_and_no_detection_is_lost(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "chunks", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "2", "--seconds", "2", "--chunk-ms", "0,10,1000", "--byte-seconds", "1",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, lines = done.table()
    assert header[:2] == ["chunk", "streams"]
    assert [line[:2] for line in lines] == [["1 byte", "1"], ["10 ms", "2"], ["1000 ms", "2"]]
    # In the first second of the recording there are two words, in all of it three.
    assert [line[6] for line in lines] == ["2 / 2", "6 / 6", "6 / 6"]
    for line in lines:
        assert float(line[3]) > 0
        assert 0 < float(line[4]) <= float(line[5])


def test_a_lost_detection_is_noticed(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    given = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert chunks.main([*given, "--streams", "1", "--seconds", "1", "--chunk-ms", "40"]) == 1
    assert "40 ms: a detection that is never made was lost" in capsys.readouterr().err
