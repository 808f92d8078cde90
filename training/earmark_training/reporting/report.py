"""The report of an evaluation: one HTML page that needs nothing beside it, its plots inside."""

from __future__ import annotations

import io
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_training.reporting.tables import tables_of

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.5em 0 } td, th { padding: 0.15em 0.9em 0.15em 0 }
tr { border-bottom: 1px solid #ddd } td, th { text-align: right }
td:first-child, th:first-child { text-align: left }
svg { max-width: 100%; height: auto } p { color: #555; max-width: 48em } code { font-size: 0.9em }
"""


def write_report(document: dict[str, Any], out: Path) -> None:
    """Write `report.html` and `metrics.json` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(document, indent=1) + "\n")
    (out / "report.html").write_text(page(document))


def page(document: dict[str, Any]) -> str:
    """Return the whole page."""
    title = escape(f"{document['model']} {document['version']}")
    data = document["data"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
        f"<h1>{title}</h1><p>Measured by <code>earmark-train evaluate</code> on {escape(data['what'])}; "
        f"seed {data['seed']}. Model file: SHA-256 <code>{document['sha256']}</code></p>",
        *(table.html() for table in tables_of(document)),
    ]
    if "tradeoff" in document:
        parts += [
            "<h2>Misses against false alarms</h2><p>All thresholds moved together; the dots are the model's "
            "own thresholds.</p>",
            svg(_curves(document)),
            "<h2>The same for every keyword</h2><p>Solid: no noise added. Dashed: noise at 10 dB.</p>",
            svg(_keyword_curves(document["tradeoff"]["by_keyword"])),
        ]
    names = {"own": "the model's own classes", "12": "the 12-class protocol"}
    for name, protocol in document.get("clips", {}).items():
        if name in names:
            parts += [f"<h2>Confusion, {names[name]}</h2>", svg(_confusion(protocol))]
    return "\n".join(parts) + "\n</html>\n"


def svg(figure: Figure) -> str:
    """Return the figure as an SVG element without what only a file of its own needs."""
    import matplotlib as mpl

    out = io.StringIO()
    # Text stays text; the salt makes the same figure the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "earmark"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curves(axes: Axes, levels: dict[str, list[list[float]]]) -> None:
    for (level, points), style in zip(levels.items(), ("-", "--", ":"), strict=False):
        x, y = np.array(points).T
        # A rate of nothing has no place on a logarithmic axis: it is drawn at half of the first alarm.
        label = "no noise added" if level == "clean" else f"noise at {level.removesuffix('db')} dB"
        axes.plot(np.maximum(x, x[x > 0].min(initial=1.0) / 2), 100 * y, style, label=label, color="C0")
    axes.set_xscale("log")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)


def _curves(document: dict[str, Any]) -> Figure:
    figure = _figure(7, 4)
    axes = figure.subplots()
    _draw_curves(axes, document["tradeoff"]["overall"])
    per_hour = document["speech"]["per_hour"] or 0.5 / document["speech"]["hours"]
    for level in document["tradeoff"]["overall"]:
        s = document["streams"][level]
        axes.plot(per_hour, 100 * (1 - s["found"] / s["spoken"]), "o", color="C1")
    axes.set(xlabel="false alarms per hour of read speech", ylabel="keywords missed, %")
    axes.legend()
    return figure


def _keyword_curves(curves: dict[str, dict[str, list[list[float]]]]) -> Figure:
    columns = 4
    rows = -(-len(curves) // columns)
    figure = _figure(9, 2 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for axes, (keyword, levels) in zip(grid, curves.items(), strict=False):
        _draw_curves(axes, levels)
        axes.set_title(keyword, fontsize=9)
    for axes in list(grid)[len(curves) :]:
        axes.set_visible(False)
    figure.supxlabel("false alarms per hour of read speech", fontsize=9)
    figure.supylabel("missed, %", fontsize=9)
    return figure


def _confusion(protocol: dict[str, Any]) -> Figure:
    counts = np.array(protocol["confusion"])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    classes = protocol["classes"]
    figure = _figure(8, 7)
    axes = figure.subplots()
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the root shows small shares
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set(xlabel="answered", ylabel="said")
    for (i, j), n in np.ndenumerate(counts):
        if n:
            axes.text(j, i, str(n), ha="center", va="center", fontsize=6, color="w" if i == j else "k")
    return figure
