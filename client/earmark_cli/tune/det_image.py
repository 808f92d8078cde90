"""What `earmark tune` found, drawn by matplotlib (the extra `plot`): misses over false alarms, by keyword."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_cli.tune.thresholds import Evidence, Point

_CURVE, _NOW, _PROPOSED = "#0072b2", "#d55e00", "#009e73"
_COLUMNS = 4
_INCHES = 3.0

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1em auto; max-width: 75em; padding: 0 1em }}
svg {{ max-width: 100%; height: auto; background: white }} pre {{ overflow: auto }}</style>
<h1>{title}</h1>
{svg}
<pre>{text}</pre></html>
"""


def write(tuned: list[tuple[Evidence, Point]], title: str, text: str, path: Path) -> None:
    """Write keywords and their proposed thresholds as a PNG or SVG, or as a page with `text`.

    OSError where it cannot be written.
    """
    figure = draw(tuned, title)
    if path.suffix != ".html":
        figure.savefig(path, dpi=110)
        return
    svg = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(svg, format="svg")
    drawing = svg.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    path.write_text(_PAGE.format(title=escape(title), svg=drawing, text=escape(text)))


def draw(tuned: list[tuple[Evidence, Point]], title: str) -> Figure:
    """Draw one small plot a keyword: the share it misses, over the false alarms an hour that it gives."""
    columns = min(_COLUMNS, len(tuned))
    rows = -(-len(tuned) // columns)
    size = (max(2, columns) * _INCHES, rows * 0.85 * _INCHES + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"{title}: missed, over false alarms an hour", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid[len(tuned) :]:
        axes.axis("off")
    for axes, (one, proposed) in zip(grid, tuned, strict=False):
        axes.set_title(one.active.keyword, loc="left", fontsize=9)
        axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.5, 1], yticklabels=["0%", "50%", "100%"])
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        # Without any audio to give false alarms all lies at none.
        hours = one.hours or 1.0
        axes.set_xscale("symlog", linthresh=1 / hours)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlim(-0.2 / hours, max(10, len(one.peaks)) / hours)
        missed = [count / len(one.said) for count in one.trade()]
        axes.step([count / hours for count in range(len(missed))], missed, where="post", color=_CURVE)
        for point, colour, mark in (
            (one.point(one.active.threshold), _NOW, "as it is"),
            (proposed, _PROPOSED, "proposed"),
        ):
            label = f"{mark}: {point.threshold:.4g}"
            place = (point.alarms / hours, point.missed / len(one.said))
            axes.plot(*place, "o" if mark == "proposed" else "s", color=colour, label=label)
        axes.legend(fontsize=7)
    return figure
