from __future__ import annotations

from typing import TYPE_CHECKING

from support import benchmark_rig

from benchmarks import fairness

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_streams_are_measured_with_and_without_a_fast_one(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "fairness", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "3", "--seconds", "2",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, (alone, beside) = done.table()
    assert header[-1] == "the fast one, times real time"
    assert alone[0] == "3 streams alone"
    assert alone[-1] == "n/a"
    # Had it not been faster than speech, it would not have been a trial.
    assert float(beside[-1]) > 1
    for line in (alone, beside):
        got, expected = (int(number) for number in line[4].split("/"))
        assert got == expected >= 9


def test_a_lost_detection_is_noticed_also_of_the_fast_one(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    given = ["--model", str(tiny_model_path), "--recording", str(benchmark_rig.words(tmp_path))]
    assert fairness.main([*given, "--streams", "1", "--seconds", "1"]) == 1
    problems = capsys.readouterr().err.split("\n")
    assert "alone: a detection that is never made was lost" in problems
    assert "the fast one: a detection that is never made was lost" in problems
