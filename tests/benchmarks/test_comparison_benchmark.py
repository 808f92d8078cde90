from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import comparison

if TYPE_CHECKING:
    from pathlib import Path

# The Python interpreter of an environment with wyoming-openwakeword, which cannot be Earmark's own.

pytestmark = pytest.mark.slow  # it runs the benchmark
PYTHON = os.environ.get("EARMARK_NEIGHBOUR_PYTHON", "")
needs_wyoming = pytest.mark.skipif(not PYTHON, reason="EARMARK_NEIGHBOUR_PYTHON is not set")


def test_without_wyoming_the_error_says_how_to_install_it() -> None:
    done = benchmark_rig.run("comparison")
    assert done.code == 2
    assert "pip install wyoming-openwakeword" in done.err
    assert not done.out


def test_a_missing_interpreter_is_a_wrong_option(tmp_path: Path) -> None:
    done = benchmark_rig.run("comparison", "--python", tmp_path / "python")
    assert done.code == 2
    assert "cannot be run" in done.err
    assert "Traceback" not in done.err


@needs_wyoming
def test_both_servers_get_the_same_load(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "comparison", "--python", PYTHON, "--model", tiny_model_path,
        "--recording", benchmark_rig.words(tmp_path), "--streams", "2", "--seconds", "2",
    )  # fmt: skip
    assert done.code == 0, done.err
    header, (earmark, bridge, wyoming) = done.table()
    assert header[2] == "server CPU, ms per stream-s"
    assert earmark[:2] == ["2", "Earmark, 3 keywords"]
    assert earmark[3] == "1.0"
    received, expected = (int(number) for number in earmark[4].split("/"))
    assert received == expected >= 6
    assert bridge[:2] == ["2", "Earmark with `earmark wyoming`"]
    assert float(bridge[2]) > float(earmark[2])
    by_bridge, expected_by_bridge = (int(number) for number in bridge[4].split("/"))
    assert by_bridge == expected_by_bridge >= 6
    assert wyoming[:2] == ["2", "wyoming-openwakeword, hey_jarvis"]
    assert float(wyoming[2]) > 0
    # The recording does not contain its keyword.
    assert wyoming[4] == "0 / 0"


@needs_wyoming
def test_a_detection_that_earmark_loses_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    options = ["--python", PYTHON, "--model", str(tiny_model_path)]
    options += ["--recording", str(benchmark_rig.words(tmp_path)), "--streams", "1", "--seconds", "1"]
    assert comparison.main(options) == 1
    assert "1 streams: a detection that no server sends was lost" in capsys.readouterr().err
