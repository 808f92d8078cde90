"""The report on a keyword: one HTML page that needs nothing beside it, and its figures as JSON."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from earmark_training.reporting.report import svg

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.5em 0 } td, th { padding: 0.15em 0.9em 0.15em 0 }
tr { border-bottom: 1px solid #ddd } td, th { text-align: left } svg { max-width: 100%; height: auto }
"""
_MANY = 25


def write_report(document: dict[str, Any], model: Path) -> None:
    """Write `<model>.report.html` and `<model>.metrics.json` beside a model file."""
    model.with_suffix(".metrics.json").write_text(json.dumps(document, indent=1) + "\n")
    model.with_suffix(".report.html").write_text(page(document))


def page(document: dict[str, Any]) -> str:
    """Return the whole page."""
    speech, synthesized = document["speech"], document["synthesized"]
    heard = "recorded speech" if speech["recorded"] else "<b>synthesized</b> speech (people's: not measured)"
    left_out = [(r["file"], r["why"]) for r in document["left_out"]]
    title = escape(document["keyword"])
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>",
        f"<h1>{title}</h1>",
        *(_misses(document) if document["checks"] else ["<p>Misses were not measured.</p>"]),
        "<h2>False alarms</h2>",
        f"<p>They were counted in {speech['held_out_hours']:.1f} h of {heard}, held out from training on "
        f"{speech['hours']:.1f} h of it. At its threshold of {document['threshold']:g}, chosen there, the "
        f"model file gives {document['alarms_per_hour']:.2f} per hour.</p>",
        *([f"<h2>Left out ({len(left_out)})</h2>", _table(("file", "why"), left_out)] if left_out else []),
        "<h2>How it was made</h2>",
        f"<p>Taught {document['recordings']} recordings; synthesized: {synthesized['keyword']} times the "
        f"keyword, {synthesized['lookalikes']} times a word that sounds like it. Seed {document['seed']}; "
        f"took {document['seconds']} s.</p>",
        f"<p>{escape(document['model'])} {escape(document['version'])}, SHA-256 of the model file "
        f"<code>{document['sha256']}</code></p>",
    ]
    return "\n".join(parts) + "\n</html>\n"


def _misses(document: dict[str, Any]) -> list[str]:
    rows = [(f"{r} false alarms per hour", f"{100 * m:.1f}%") for r, m in document["missed_at"].items()]
    weak = [(t["file"], f"{t['margin']:.1f}") for t in document["takes"] if t["margin"] < 0]
    return [
        f"<p>Missed: <b>{100 * document['missed']:.1f}%</b> of {document['recordings']} recordings, at "
        f"thresholds for {document['fa_per_hour']:g} false alarms per hour. Each recording was heard by one "
        f"of {document['checks']} models that had been taught the others but not it. The model file "
        "itself was taught all of them.</p>",
        _table(("threshold for", "recordings missed"), rows),
        _curve(document["curve"]),
        f"<h2>Recordings that were missed ({len(weak)})</h2><p>Listen to them: is the word in them, whole "
        "and said as it should be? The margin is how far, in log-odds, the best score lies from the "
        "threshold.</p>",
        _table(("file", "margin"), weak[:_MANY]),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _curve(points: Sequence[Sequence[float]]) -> str:
    """Return the curve of misses against false alarms as an SVG element."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([p[0] for p in points], [100 * p[1] for p in points])
    axes.set(xscale="log", xlabel="false alarms per hour", ylabel="missed, %", ylim=(0, None))
    axes.grid(alpha=0.3)
    return svg(figure)
