from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks.loadgen.resumed_stream import Stream

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "way", [[], ["--nginx"], ["--rolling"], ["--rolling", "--nginx"], ["--cut"]], ids=" ".join
)
def test_nothing_is_lost_when_servers_are_killed_or_replaced_or_connections_cut(
    tiny_model_path: Path, tmp_path: Path, way: list[str]
) -> None:
    if "--nginx" in way and shutil.which("nginx") is None:
        pytest.skip("no nginx: on Debian, install nginx-light")
    done = benchmark_rig.run(
        "survival", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "4", "--seconds", "12", "--times", "3", "--speed", "2", *way,
    )  # fmt: skip
    assert done.code == 0, done.err
    header, (line,) = done.table()
    cells = dict(zip(header, line, strict=True))
    assert (cells["times"], cells["streams"]) == ("3", "4")
    assert int(cells["times resumed"]) >= 1
    # 24 s from any place of a loop of 2 s with three words.
    assert cells["got"] == cells["detections expected"]
    assert int(cells["got"]) >= 4 * 35
    assert [cells[name] for name in ("lost", "repeated", "moved")] == ["0", "0", "0"]


def test_what_is_lost_comes_twice_or_is_moved_is_counted() -> None:
    expected = {"low-10": (1, 2), "mid-20": (3, 4), "low-30": (5, 6)}

    def stream(*got: tuple[str, tuple[int, int]]) -> Stream:
        return Stream(None, 0, 0, 1.0, expected, list(got))  # type: ignore[arg-type]

    def counts(one: Stream) -> tuple[int, int, int]:
        return one.lost, one.repeated, one.moved

    first, second, third = expected.items()
    assert counts(stream(first, second, third)) == (0, 0, 0)
    assert counts(stream(first, third)) == (1, 0, 0)
    assert counts(stream(first, second, first, third)) == (0, 1, 0)
    assert counts(stream(first, ("mid-20", (3, 5)), third)) == (0, 0, 1)
    assert counts(stream(first, ("mid-21", (3, 4)), third)) == (1, 0, 1)
    assert counts(stream(second, first, third)) == (0, 0, 1)


def test_a_trial_in_which_nothing_is_heard_is_no_success(tiny_model_path: Path, tmp_path: Path) -> None:
    done = benchmark_rig.run(
        "survival", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path, []),
        "--streams", "1", "--seconds", "1", "--times", "1",
    )  # fmt: skip
    assert done.code == 1
    assert "nothing was put to the test" in done.err
