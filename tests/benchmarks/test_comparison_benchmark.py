from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig, tiny_model

from benchmarks import comparison
from benchmarks.loadgen.delay import delays_s, word_ends_s
from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.speech import Speech

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
    # The recording has no labels.
    assert header[4:6] == ["delay p50, ms", "delay p99, ms"]
    assert earmark[4:6] == bridge[4:6] == ["n/a", "n/a"]
    received, expected = (int(number) for number in earmark[6].split("/"))
    assert received == expected >= 6
    assert bridge[:2] == ["2", "Earmark with `earmark wyoming`"]
    assert float(bridge[2]) > float(earmark[2])
    by_bridge, expected_by_bridge = (int(number) for number in bridge[6].split("/"))
    assert by_bridge == expected_by_bridge >= 6
    assert wyoming[:2] == ["2", "wyoming-openwakeword, hey_jarvis"]
    assert float(wyoming[2]) > 0
    # The recording does not contain its keyword.
    assert wyoming[6] == "0 / 0"


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


@needs_wyoming
def test_the_delay_is_measured_from_the_end_of_each_word(tiny_model_path: Path, tmp_path: Path) -> None:
    recording = benchmark_rig.words(tmp_path)
    said = [
        {"keyword": word, "end_s": at_s + len(tiny_model.tone(word)) / tiny_model.RATE_HZ}
        for at_s, word in benchmark_rig.WORDS
    ]
    recording.with_suffix(".json").write_text(json.dumps({"said": said}))
    done = benchmark_rig.run(
        "comparison", "--python", PYTHON, "--model", tiny_model_path,
        "--recording", recording, "--streams", "1", "--seconds", "8",
    )  # fmt: skip
    assert done.code == 0, done.err
    _, (earmark, bridge, _) = done.table()
    for row in (earmark, bridge):
        # At least the peak hold, and a chunk of 100 ms.
        assert 0 < float(row[4]) <= float(row[5]) < 2000


def test_labels_that_are_none_are_reported(tmp_path: Path) -> None:
    recording = tmp_path / "speech.wav"
    assert word_ends_s(recording) == []
    for text in ("{", "[]", '{"said": 1}', '{"said": [{"keyword": "a"}]}'):
        recording.with_suffix(".json").write_text(text)
        with pytest.raises(BenchmarkError, match=r"speech\.json: no labels as in demo\.json"):
            word_ends_s(recording)


def test_delays_in_a_loop() -> None:
    speech = Speech(16_000, 3200, (bytes(3200),) * 20, ())  # 2 s
    assert delays_s([0.75, 0.25, 2.6, 4.2], [0.5, 1.5], speech) == pytest.approx([0.25, 0.75, 0.1, 0.7])
    assert delays_s([1.0], [], speech) == []
