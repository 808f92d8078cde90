from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import neighbour

if TYPE_CHECKING:
    from pathlib import Path

# The interpreter of an environment that has wyoming-openwakeword: it cannot share one with Earmark.
PYTHON = os.environ.get("EARMARK_NEIGHBOUR_PYTHON", "")
needs_neighbour = pytest.mark.skipif(not PYTHON, reason="EARMARK_NEIGHBOUR_PYTHON is not set")


def test_where_it_is_not_installed_it_says_how() -> None:
    done = benchmark_rig.run("neighbour")
    assert done.code == 2
    assert "pip install wyoming-openwakeword" in done.err
    assert not done.out


def test_an_interpreter_that_is_none_is_a_wrong_option(tmp_path: Path) -> None:
    done = benchmark_rig.run("neighbour", "--python", tmp_path / "python")
    assert done.code == 2
    assert "cannot be run" in done.err
    assert "Traceback" not in done.err


@needs_neighbour
def test_both_bear_the_same_load(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "neighbour", "--python", PYTHON, "--model", tiny_model_path,
        "--recording", benchmark_rig.words(tmp_path), "--streams", "2", "--seconds", "2",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, (ours, its) = done.table()
    assert header[2] == "CPU, ms per stream-s"
    assert ours[:2] == ["2", "Earmark, 3 keywords"]
    assert ours[3] == "1.0"
    got, expected = (int(number) for number in ours[4].split("/"))
    assert got == expected >= 6
    assert its[:2] == ["2", "wyoming-openwakeword, hey_jarvis"]
    assert float(its[2]) > 0
    # Nobody says its word.
    assert its[4] == "0 / 0"


@needs_neighbour
def test_a_detection_that_earmark_lost_is_noticed(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    given = ["--python", PYTHON, "--model", str(tiny_model_path)]
    given += ["--recording", str(benchmark_rig.words(tmp_path)), "--streams", "1", "--seconds", "1"]
    assert neighbour.main(given) == 1
    assert "1 streams: a detection that is never made was lost" in capsys.readouterr().err
