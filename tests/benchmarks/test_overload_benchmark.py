from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import overload

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # it runs the benchmark


def test_streams_beyond_the_limit_are_rejected_and_the_others_lose_nothing(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    done = benchmark_rig.run(
        "overload", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "3", "--more", "4", "--max-streams", "5", "--seconds", "6",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, lines = done.table()
    assert header[1:3] == ["streams", "rejected"]
    assert [line[:3] for line in lines] == [
        ["before", "3", "0"],
        ["while 4 more try to open", "3", "0"],
        ["afterwards", "3", "0"],
        ["the later streams", "2", "2"],
    ]
    for line in lines:
        received, expected = (int(number) for number in line[6].split("/"))
        assert received == expected > 0
        latencies_ms = [float(cell) for cell in line[3:6]]
        assert latencies_ms == sorted(latencies_ms)


def test_a_lost_detection_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert overload.main([*options, "--streams", "1", "--more", "2", "--seconds", "3"]) == 1
    # No detection is expected from the two rejected streams.
    assert capsys.readouterr().err.strip() == "a detection that no server sends was lost"
