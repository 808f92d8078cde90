"""DET curves as an image or an HTML page, drawn by matplotlib (extra `plot`)."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from earmark_cli.output.console import printable
from earmark_cli.output.html_page import html_page

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_cli.tune.operating_point import KeywordScores, OperatingPoint

_CURVE, _CURRENT, _PROPOSED = "#0072b2", "#d55e00", "#009e73"
_COLUMNS = 4
_INCHES = 3.0
# In the dark, the drawing is inverted, and its colours turned back.
_STYLE = """\
svg { max-width: 100%; height: auto; background: white }
@media (prefers-color-scheme: dark) { svg { filter: invert(.92) hue-rotate(180deg) } }
pre { overflow: auto }
"""


def write_det_plot(
    tuned: list[tuple[KeywordScores, OperatingPoint]], title: str, text: str, path: Path
) -> None:
    """Write the curves of keywords with their proposed points: PNG, SVG, or an HTML page with `text`.

    Raises OSError if that fails.
    """
    # Names may contain $, which matplotlib would parse as mathematics.
    with rc_context({"text.parse_math": False}):
        figure = draw(tuned, printable(title))
    if path.suffix != ".html":
        figure.savefig(path, dpi=110)
        return
    svg = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):  # keep text as text
        figure.savefig(svg, format="svg")
    drawing = svg.getvalue()
    body = f"{drawing[drawing.index('<svg') :]}\n<pre>{escape(printable(text))}</pre>"
    path.write_text(html_page(title, body, style=_STYLE), encoding="utf-8")


def draw(tuned: list[tuple[KeywordScores, OperatingPoint]], title: str) -> Figure:
    """Draw one small plot per keyword: its miss rate over its false alarms per hour."""
    columns = min(_COLUMNS, len(tuned))
    rows = -(-len(tuned) // columns)
    size = (max(2, columns) * _INCHES, rows * 0.85 * _INCHES + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=10)
    figure.supxlabel("false alarms per hour", fontsize=9)
    figure.supylabel("recordings missed", fontsize=9)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid[len(tuned) :]:
        axes.axis("off")
    for axes, (scores, proposed) in zip(grid, tuned, strict=False):
        axes.set_title(printable(scores.active.keyword), loc="left", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        # Without other audio there are no false alarms, whatever the scale.
        hours = scores.other_hours or 1.0
        axes.set_xscale("symlog", linthresh=1 / hours)
        axes.xaxis.set_major_formatter("{x:g}")
        points = (scores.current, proposed)
        # The axes end where the curve and the points end, not where the lowest score would be.
        axes.set_xlim(-0.2 / hours, 1.3 * max(10, scores.useful_alarms, *(p.alarms for p in points)) / hours)
        miss_rates = [count / len(scores.recording_scores) for count in scores.misses_by_alarms()]
        top = max(miss_rates[0], *(p.missed / len(scores.recording_scores) for p in points), 0.01)
        axes.set_ylim(-0.03 * top, 1.1 * top)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if top > 0.05 else 1))
        alarm_rates = [count / hours for count in range(len(miss_rates))]
        axes.step(alarm_rates, miss_rates, where="post", color=_CURVE)
        for point, colour, marker, name in (
            (scores.current, _CURRENT, "s", "current"),
            (proposed, _PROPOSED, "o", "proposed"),
        ):
            x, y = point.alarms / hours, point.missed / len(scores.recording_scores)
            axes.plot(x, y, marker, color=colour, label=f"{name}: {point.threshold:.4g}")
        axes.legend(fontsize=7)
    return figure
