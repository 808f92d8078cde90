"""A plot of cost and latency over the number of streams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.table import percentile_ms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.loadgen.workload import Measurement


def plot_streams(measurements: Sequence[Measurement], title: str, path: Path) -> None:
    """Write the plot; the suffix of `path` selects the format. Raises BenchmarkError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("--plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    cost, latency = figure.subplots(2, 1, sharex=True)
    streams = [one.streams for one in measurements]

    def draw(axes: Axes, values: Sequence[float | None], label: str, style: str) -> None:
        axes.plot(streams, [math.nan if value is None else value for value in values], style, label=label)

    draw(cost, [one.server_ms for one in measurements], "server", "o-")
    draw(cost, [one.generator_ms for one in measurements], "load generator", "s--")
    cost.set_ylabel("CPU, ms per stream-second")
    draw(latency, [percentile_ms(one.outcome.latencies_s, 50) for one in measurements], "p50", "o-")
    draw(latency, [percentile_ms(one.outcome.latencies_s, 99) for one in measurements], "p99", "s--")
    latency.set_ylabel("event latency, ms")
    latency.set_xlabel("concurrent real-time streams")
    for axes in (cost, latency):
        axes.set_xscale("log")
        axes.set_xticks(streams, [str(count) for count in streams])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=150)
