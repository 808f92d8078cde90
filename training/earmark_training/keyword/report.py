"""The report of a keyword's model: one self-contained HTML page, and the metrics as JSON."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from earmark_audio.json_text import json_text

from earmark_training.evaluation.intervals import rate_text, wilson_interval
from earmark_training.output_files import replace_file
from earmark_training.reporting import html

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from earmark_training.keyword.examples_as_sound import Sound

    Sounds: TypeAlias = Mapping[str, tuple[Sequence[Sound], Sequence[Sound]]]

_MAX_MISSED_LISTED = 25


def write_report(document: dict[str, Any], model: Path, sounds: Sounds) -> None:
    """Write `<model>.report.html` and `<model>.metrics.json` beside a model file."""
    replace_file(model.with_suffix(".metrics.json"), (json_text(document, indent=1) + "\n").encode())
    # A file name may not be valid UTF-8.
    content = page(document, sounds).encode("utf-8", "backslashreplace")
    replace_file(model.with_suffix(".report.html"), content)


def page(document: dict[str, Any], sounds: Sounds) -> str:
    """Return the page of the document of `create_model`, with the sounds of each keyword."""
    keywords = document.get("keywords") or [document]
    parts = []
    for keyword in keywords:
        if len(keywords) > 1:
            parts.append(f"<h1>{escape(keyword['keyword'])}</h1>")
        parts += _keyword(keyword, *sounds.get(keyword["keyword"], ([], [])))
    parts += [
        f"<p>Seed {document['seed']}; {document['seconds']} s.</p>",
        f"<p>{escape(document['model'])} {escape(document['version'])}, SHA-256 of the model file "
        f"<code>{document['sha256']}</code></p>",
    ]
    return html.page(", ".join(k["keyword"] for k in keywords), parts)


def _keyword(document: dict[str, Any], missed: Sequence[Sound], alarms: Sequence[Sound]) -> list[str]:
    """Return the part of the page about one keyword."""
    speech, synthesized = document["speech"], document["synthesized"]
    kind = "recorded" if speech["recorded"] else "<b>synthesized</b>"
    caveat = "" if speech["recorded"] else " They were not measured in people's speech, where there are more."
    chosen = "The threshold was chosen on the same speech"
    if document["threshold_was_raised"]:
        chosen = "The threshold was raised above the one that this speech needs"
    left_out = [(r["file"], r["why"]) for r in document["left_out"]]
    rates = [(c, rate_text(count, speech["held_out_hours"])) for c, count in document["alarms_in"].items()]
    parts = [
        *(_misses(document) if document["measured"] else ["<p>The miss rate was not measured.</p>"]),
        *_players("The lowest margins", missed),
        "<h2>False alarms</h2>",
        f"<p>At its threshold of {document['threshold']:g}, in {speech['held_out_hours']:.1f} h of {kind} "
        f"speech. {chosen}; another {speech['hours']:.1f} h were used for training.{caveat} The range is the "
        "95% confidence interval of the rate: the fewer hours, the wider it is.</p>",
        html.table(("condition", "false alarms"), rates, numbers=False),
        *_players("The highest scores in speech without the keyword", alarms),
    ]
    if left_out:
        parts += [
            f"<h2>Recordings that were left out ({len(left_out)})</h2>",
            html.table(("file", "reason"), left_out, numbers=False),
        ]
    return [
        *parts,
        "<h2>Training</h2>",
        f"<p>Recordings: {document['recordings']}. Synthesized keywords: {synthesized['keyword']}. "
        f"Synthesized confusables: {synthesized['confusables']}.</p>",
    ]


def _players(title: str, sounds: Sequence[Sound]) -> list[str]:
    """Return sounds with their captions, to be played in the page."""
    if not sounds:
        return []
    rows = (
        f'<li><audio controls preload="none" src="{s.url}"></audio> {escape(s.caption)}</li>' for s in sounds
    )
    return [f"<h3>{title}</h3>", "<ul>", *rows, "</ul>"]


def _misses(document: dict[str, Any]) -> list[str]:
    rows = [(rate, f"{100 * miss_rate:.1f}%") for rate, miss_rate in document["missed_at"].items()]
    missed = [(r["file"], f"{r['margin']:.1f}") for r in document["takes"] if r["margin"] < 0]
    count = round(document["missed"] * document["measured"])
    low, high = wilson_interval(count, document["measured"])
    rate = (
        f"<p>Miss rate: <b>{100 * document['missed']:.1f}%</b> (95% interval {low:.1%} to {high:.1%}) of "
        f"{document['measured']} "
    )
    if document["threshold_was_raised"]:
        how = (
            "at the threshold of the model, which was raised until few recordings are missed, because "
            "false alarms in people's speech could not be counted"
        )
    else:
        how = (
            f"at thresholds for {document['fa_per_hour']:g} false alarms per hour (mean of all conditions, "
            "at most twice as many in one)"
        )
    if document["measured_on"] == "recordings":
        s = "" if document["measured"] == 1 else "s"
        folds = f", in {document['checks']}-fold cross-validation" if document["checks"] > 1 else ""
        rate += (
            f"recording{s}, {how}{folds}. Each recording was scored by a model that was trained without it, "
            "but perhaps with others of the same person. The model file was trained on all of them.</p>"
        )
    else:
        rate += (
            f"utterances of <b>synthetic voices</b>, {how}, by a model that was trained on other words in "
            "these voices, but not on the keyword. The model file was trained on all of them. People are "
            "missed more often: to measure how often, make recordings and add --recordings.</p>"
        )
    parts = [
        rate,
        html.table(("false alarms per hour", "miss rate"), rows),
        _plot_curve(document["curve"]),
        f"<h2>Keywords that were missed ({len(missed)})</h2>",
    ]
    if missed:
        parts += [
            "<p>Listen to them: do they contain the whole word, pronounced as it should be?</p>",
            html.table(("file", "margin"), missed[:_MAX_MISSED_LISTED]),
        ]
    if len(missed) > _MAX_MISSED_LISTED:
        parts.append(f"<p>… and {len(missed) - _MAX_MISSED_LISTED} more.</p>")
    return [
        *parts,
        "<p>The margin is the difference between the highest score and the threshold, in log-odds.</p>",
    ]


def _plot_curve(points: Sequence[Sequence[float]]) -> str:
    """Return the DET curve as an SVG element."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([p[0] for p in points], [100 * p[1] for p in points])
    axes.set(xscale="log", xlabel="false alarms per hour", ylabel="miss rate, %", ylim=(0, None))
    axes.grid(alpha=0.3)
    return html.svg(figure)
