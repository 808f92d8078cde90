"""What streams cost and how long events take, drawn over the number of streams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from benchmarks.loadgen.speech import BenchmarkError
from benchmarks.loadgen.table import quantile_ms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.loadgen.workload import Measured


def plot_streams(found: Sequence[Measured], about: str, path: Path) -> None:
    """Write the picture; the file's ending says of which kind. Raises BenchmarkError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BenchmarkError("--plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    cost, delay = figure.subplots(2, 1, sharex=True)
    streams = [one.streams for one in found]

    def draw(axes: Any, values: Sequence[float | None], label: str, style: str) -> None:
        axes.plot(streams, [math.nan if value is None else value for value in values], style, label=label)

    draw(cost, [one.server_ms for one in found], "server", "o-")
    draw(cost, [one.generator_ms for one in found], "load generator", "s--")
    cost.set_ylabel("CPU, ms per stream-second")
    draw(delay, [quantile_ms(one.outcome.delays_s, 50) for one in found], "p50", "o-")
    draw(delay, [quantile_ms(one.outcome.delays_s, 99) for one in found], "p99", "s--")
    delay.set_ylabel("delay of events, ms")
    delay.set_xlabel("real-time streams at once")
    for axes in (cost, delay):
        axes.set_xscale("log")
        axes.set_xticks(streams, [str(count) for count in streams])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(about, fontsize="medium")
    figure.savefig(path, dpi=150)
