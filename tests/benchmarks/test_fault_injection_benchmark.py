from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks.loadgen.resumed_stream import ResumedStream

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow  # it runs the benchmark


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--rolling", "--nginx"],
        ["--cut"],
        ["--nginx"],
        ["--rolling"],
    ],
    ids=" ".join,
)
def test_nothing_is_lost_when_servers_are_killed_or_replaced_or_connections_cut(
    tiny_model_path: Path, tmp_path: Path, options: list[str]
) -> None:
    if "--nginx" in options and shutil.which("nginx") is None:
        pytest.skip("nginx is not installed: on Debian, install nginx-light")
    # Replacing a server takes seconds. With seed 30 the three faults leave enough time for that on a busy
    # machine.
    seed = "30" if "--rolling" in options else "0"
    done = benchmark_rig.run(
        "fault_injection", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "4", "--seconds", "12", "--times", "3", "--speed", "2", "--seed", seed, *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    header, (line,) = done.table()
    cells = dict(zip(header, line, strict=True))
    assert (cells["faults"], cells["streams"]) == ("3", "4")
    assert int(cells["streams resumed"]) >= 1
    # 24 s from any position of a loop of 2 s with three keywords.
    assert cells["received"] == cells["detections expected"]
    assert int(cells["received"]) >= 4 * 35
    assert [cells[name] for name in ("lost", "repeated", "unexpected")] == ["0", "0", "0"]


def test_lost_repeated_and_unexpected_detections_are_counted() -> None:
    expected = {"low-10": (1, 2), "mid-20": (3, 4), "low-30": (5, 6)}

    def stream(*received: tuple[str, tuple[int, int]]) -> ResumedStream:
        return ResumedStream(None, 0, 0, 1.0, expected, list(received))  # type: ignore[arg-type]

    def counts(one: ResumedStream) -> tuple[int, int, int]:
        return one.lost, one.repeated, one.unexpected

    first, second, third = expected.items()
    assert counts(stream(first, second, third)) == (0, 0, 0)
    assert counts(stream(first, third)) == (1, 0, 0)
    assert counts(stream(first, second, first, third)) == (0, 1, 0)
    assert counts(stream(first, ("mid-20", (3, 5)), third)) == (0, 0, 1)
    assert counts(stream(first, ("mid-21", (3, 4)), third)) == (1, 0, 1)
    assert counts(stream(second, first, third)) == (0, 0, 1)


def test_a_run_without_detections_is_a_failure(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "fault_injection", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path, []),
        "--streams", "1", "--seconds", "1", "--times", "1",
    )  # fmt: skip
    assert done.code == 1
    assert "nothing was tested" in done.err
