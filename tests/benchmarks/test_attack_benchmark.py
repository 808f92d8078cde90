from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import benchmark_rig

from benchmarks.loadgen.attacks import ATTACKS

if TYPE_CHECKING:
    from pathlib import Path

# These fill the memory of a server up to its limit: tests/server/memory/test_guard.py.

pytestmark = pytest.mark.slow  # it runs the benchmark
FILL_THE_MEMORY = {"begun-messages", "short-headers"}


def attack(tiny_model_path: Path, tmp_path: Path, names: str) -> None:
    done = benchmark_rig.run(
        "attack", "--model", tiny_model_path, "--recording", benchmark_rig.words(tmp_path),
        "--streams", "5", "--seconds", "4", "--only", names,
    )  # fmt: skip
    assert done.code == 0, done.err
    header, rows = done.table()
    assert header[4] == "lost"
    for row in rows:
        assert (row[4], row[-1]) == ("0", "yes")
        assert float(row[5]) < 512


def test_streams_beside_an_attack_lose_nothing(tiny_model_path: Path, tmp_path: Path) -> None:
    attack(tiny_model_path, tmp_path, "full-speed")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - FILL_THE_MEMORY))
def test_a_server_survives_every_attack_that_is_prevented(
    tiny_model_path: Path, tmp_path: Path, name: str
) -> None:
    attack(tiny_model_path, tmp_path, name)
