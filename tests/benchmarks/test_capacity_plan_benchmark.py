from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import yaml
from support.benchmark_rig import ROOT, run

from benchmarks.capacity_plan import Plan, main

if TYPE_CHECKING:
    import pytest

PAGE = (ROOT / "docs" / "capacity.md").read_text()

PLAN = Plan(
    streams=1000,
    cost_ms=1.0,
    streams_per_core=400,
    balancer_ms=0.25,
    machine_cores=2,
    series=10,
    chunk_ms=100,
    replay_s=2.0,
    core_hour=0.5,
    gigabyte=1.0,
)


def test_the_page_shows_the_output_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    table = capsys.readouterr().out
    assert table in PAGE


def test_the_figures_follow_from_the_options() -> None:
    assert PLAN.cores == 3  # 2.5
    assert PLAN.balancer_cores == 1  # 0.25 of work, half busy
    assert PLAN.machines == 2
    # 3,200 bytes of audio and 40 of overhead, in three packets, ten times per second.
    assert math.isclose(PLAN.gigabit_s(256_000), 1000 * 10 * (3200 + 40 + 3 * 54) * 8 / 1e9)
    assert PLAN.time_series == 30
    # Two of three cores are left, with 1.5 times the streams: 0.6 utilized, and 0.3 for the replayed audio.
    assert math.isclose(PLAN.catch_up_s, 200 * 2 * 1e-3 / 0.3)
    assert PLAN.core_cost == 2.0
    assert math.isclose(PLAN.traffic_cost(256_000), PLAN.gigabit_s(256_000) / 8 * 3600)


def test_without_spare_cores_servers_never_catch_up_after_a_zone_failure() -> None:
    done = run("capacity_plan", "--streams", "100", "--streams-per-core", "700")
    assert done.code == 0
    assert ["catch-up time after a zone failure, s", "inf"] in [line[:2] for line in done.tables()[0]]


def test_the_page_states_the_autoscaler_target_and_the_measured_cost() -> None:
    scaler = yaml.safe_load((ROOT / "deploy/kubernetes/production/autoscaler.yaml").read_text())
    (streams,) = (
        metric["pods"]["target"]["averageValue"]
        for metric in scaler["spec"]["metrics"]
        if metric["pods"]["metric"]["name"] == "earmark_streams_open"
    )
    assert f"| {streams} streams a core" in PAGE
    readme = (ROOT / "README.md").read_text()
    costs = re.findall(r"^\| 500 \| ([\d.]+) \|", readme, re.MULTILINE)
    assert len(costs) == 1
    assert f"| {costs[0]} ms of CPU for a second of a stream |" in PAGE
