from __future__ import annotations

from typing import TYPE_CHECKING

from support import benchmark_rig

from benchmarks import capacity

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_streams_beyond_the_limit_are_refused_and_the_others_lose_nothing(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    done = benchmark_rig.run(
        "capacity", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "3", "--more", "4", "--max-streams", "5", "--seconds", "6",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, lines = done.table()
    assert header[1:3] == ["streams", "refused"]
    assert [line[:3] for line in lines] == [
        ["before", "3", "0"],
        ["while 4 more knock", "3", "0"],
        ["afterwards", "3", "0"],
        ["those that knocked", "2", "2"],
    ]
    for line in lines:
        got, expected = (int(number) for number in line[6].split("/"))
        assert got == expected > 0
        delays_ms = [float(cell) for cell in line[3:6]]
        assert delays_ms == sorted(delays_ms)


def test_a_lost_detection_is_noticed(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    given = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert capacity.main([*given, "--streams", "1", "--more", "2", "--seconds", "3"]) == 1
    # Nobody expects anything of the two that were refused.
    assert capsys.readouterr().err.strip() == "a detection that is never made was lost"
