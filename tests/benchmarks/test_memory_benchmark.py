from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks import memory
from benchmarks.loadgen.server_process import running_server
from benchmarks.loadgen.speech import Speech

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="memory can be measured on Linux only"),
    pytest.mark.slow,  # it runs the benchmark
]


def _options(tiny_model_path: Path, recording: Path) -> list[str]:
    return [
        "--model", str(tiny_model_path), "--recording", str(recording),
        "--open", "5", "--seconds", "2", "--soak", "200", "--at-once", "8",
    ]  # fmt: skip


def test_memory_is_measured_for_open_and_for_short_streams(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run("memory", *_options(tiny_model_path, benchmark_rig.words(tmp_path)))
    opened, soaked = done.tables()
    assert opened[0][0] == "open streams"
    assert opened[2][0] == "5"
    assert float(opened[2][1]) > 10
    assert [line[0] for line in (soaked[2], soaked[-1])] == ["80", "200"]
    assert len(soaked) == 2 + 11
    shares = [float(line[3]) for line in soaked[2:]]
    grown = 100 * (min(shares[-3:]) / min(shares[:3]) - 1)
    # With so few streams, memory may still grow. Only that may be reported, and it must be.
    assert [line.startswith("memory grew by ") for line in done.err.split("\n") if line] == (
        [True] if grown > 5 else []
    )
    assert done.code == (1 if grown > 5 else 0)
    received, expected = (int(word) for word in done.out.split("Detections: ")[1].rstrip(".\n").split(" of "))
    assert received == expected > 100


def test_a_lost_detection_is_reported(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benchmark_rig.expect_one_more(monkeypatch)
    assert memory.main(_options(tiny_model_path, benchmark_rig.words(tmp_path))) == 1
    problems = capsys.readouterr().err
    assert "5 open streams: a detection that no server sends was lost (5 times)" in problems
    # No detection is expected from the third of the 200 streams that is cancelled.
    assert "a detection that no server sends was lost (133 times)" in problems


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (3, None),
        (4, "the server admits 3 streams afterwards, but the limit is 4"),
        (2, "the server admits more than 2 streams"),
    ],
)
def test_streams_that_the_server_does_not_release_are_reported(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, problem: str | None
) -> None:
    monkeypatch.setattr(memory, "RELEASE_TIMEOUT_S", 2)
    speech = Speech.read(benchmark_rig.words(tmp_path), 100)
    with running_server(tiny_model_path, 3) as server:
        assert memory.check_capacity(server, speech, limit) == ([problem] if problem else [])
