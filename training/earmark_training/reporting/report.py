"""The report of an evaluation: one self-contained HTML page, and the metrics as JSON."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_training.output_files import replace_file
from earmark_training.reporting import html
from earmark_training.reporting.tables import tables_of

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CONFUSION_TITLES = {"own": "the model's own classes", "12": "the 12-class protocol"}


def write_report(document: dict[str, Any], out: Path) -> None:
    """Write `report.html` and `metrics.json` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "metrics.json", (json.dumps(document, indent=1) + "\n").encode())
    replace_file(out / "report.html", page(document).encode())


def page(document: dict[str, Any]) -> str:
    """Return the page of an evaluation's document."""
    data = document["data"]
    parts = [
        f"<p>Measured by <code>earmark-train evaluate</code> on {escape(data['what'])}; "
        f"seed {data['seed']}. Model file: SHA-256 <code>{document['sha256']}</code></p>",
        *(table.html() for table in tables_of(document)),
    ]
    if "det_curve" in document:
        parts += [
            "<h2>DET curve</h2><p>Miss rate against false alarms, with all thresholds moved together. The "
            "dots are the operating points of the model's own thresholds.</p>",
            html.svg(_plot_curves(document)),
            "<h2>DET curves by keyword</h2><p>Solid: no noise added. Dashed: SNR 10 dB.</p>",
            html.svg(_plot_keyword_curves(document["det_curve"]["by_keyword"])),
        ]
    for name, protocol in document.get("clips", {}).items():
        if name in _CONFUSION_TITLES:
            parts += [
                f"<h2>Confusion matrix, {_CONFUSION_TITLES[name]}</h2>",
                html.svg(_plot_confusion(protocol)),
            ]
    return html.page(f"{document['model']} {document['version']}", parts)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_curves(axes: Axes, levels: dict[str, list[list[float]]]) -> None:
    for (level, points), style in zip(levels.items(), ("-", "--", ":"), strict=False):
        fa_per_hour, miss_rate = np.array(points).T
        label = "no noise added" if level == "clean" else f"SNR {level.removesuffix('db')} dB"
        # A rate of 0 has no place on a logarithmic axis: it is drawn at half the rate of one false alarm.
        x = np.maximum(fa_per_hour, fa_per_hour[fa_per_hour > 0].min(initial=1.0) / 2)
        axes.plot(x, 100 * miss_rate, style, label=label, color="C0")
    axes.set_xscale("log")
    axes.set_ylim(0, None)
    axes.grid(alpha=0.3)


def _plot_curves(document: dict[str, Any]) -> Figure:
    figure = _figure(7, 4)
    axes = figure.subplots()
    _draw_curves(axes, document["det_curve"]["overall"])
    per_hour = document["speech"]["per_hour"] or 0.5 / document["speech"]["hours"]
    for level in document["det_curve"]["overall"]:
        s = document["streams"][level]
        axes.plot(per_hour, 100 * (1 - s["detected"] / s["spoken"]), "o", color="C1")
    axes.set(xlabel="false alarms per hour of read speech", ylabel="miss rate, %")
    axes.legend()
    return figure


def _plot_keyword_curves(curves: dict[str, dict[str, list[list[float]]]]) -> Figure:
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
    figure.supylabel("miss rate, %", fontsize=9)
    return figure


def _plot_confusion(protocol: dict[str, Any]) -> Figure:
    counts = np.array(protocol["confusion"])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    classes = protocol["classes"]
    figure = _figure(8, 7)
    axes = figure.subplots()
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # the square root makes small shares visible
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=8)
    axes.set_yticks(range(len(classes)), classes, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    for (i, j), n in np.ndenumerate(counts):
        if n:
            axes.text(j, i, str(n), ha="center", va="center", fontsize=6, color="w" if i == j else "k")
    return figure
