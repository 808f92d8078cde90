"""A timeline as a PNG, drawn by matplotlib (the extra `plot`); colours by Okabe and Ito (2008)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from earmark_cli.plot.spectrogram import BANDS, band_hz, mel_spectrogram

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_cli.plot.timeline import Timeline

_CURVE, _LIMIT, _FOUND, _WAVE = "#0072b2", "#d55e00", "#009e73", "#555555"
_DPI = 110
_INCHES_PER_S = 0.5
_LETTER_INCHES = 0.09
_LEAST_INCHES, _MOST_INCHES = 10.0, 60.0


def write(timeline: Timeline, path: Path) -> None:
    """Write the picture; OSError where that cannot be."""
    draw(timeline).savefig(path, dpi=_DPI)


def draw(timeline: Timeline) -> Figure:
    """Draw waveform, mel spectrogram and the keywords' scores above each other."""
    heard, start_s = timeline.heard, timeline.start_s
    end_s = start_s + timeline.duration_s
    width = min(_MOST_INCHES, max(_LEAST_INCHES, _INCHES_PER_S * timeline.duration_s))
    columns = min(round(width * _DPI), len(timeline.samples))
    heights = [1.1, 1.5, *[0.5] * len(timeline.shown)]
    figure = Figure(figsize=(width, sum(heights) + 1), layout="constrained")
    wave, mel, *rows = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]

    envelope = timeline.envelope(columns)
    times_s = start_s + (np.arange(columns) + 0.5) * timeline.duration_s / columns
    wave.fill_between(times_s, envelope[:, 0] / 127, envelope[:, 1] / 127, color=_WAVE, linewidth=0)
    wave.set(ylim=(-1, 1), yticks=[], xlim=(start_s, end_s))
    wave.set_ylabel("waveform", rotation=0, ha="right", va="center")
    wave.set_title(f"{timeline.name}: {timeline.summary}", loc="left", fontsize=10, pad=28)

    mel.imshow(
        mel_spectrogram(timeline.samples, timeline.sample_rate_hz, columns),
        origin="lower",
        aspect="auto",
        cmap="cividis",
        extent=(start_s, end_s, 0, BANDS),
        interpolation="nearest",
    )
    ticks_hz = [500, 1000, 2000, 4000]
    mel.set_yticks(
        np.interp(ticks_hz, band_hz()[1:-1], np.arange(BANDS) + 0.5), map(str, ticks_hz), fontsize=8
    )
    mel.set_ylabel("mel, Hz", rotation=0, ha="right", va="center")

    names = {}
    for axes, i in zip(rows, timeline.shown, strict=True):
        active = heard.started.keywords[i]
        names[active.keyword] = axes
        axes.plot(start_s + heard.offsets_s, heard.scores[:, i], color=_CURVE, linewidth=1.2)
        axes.axhline(active.threshold, color=_LIMIT, linewidth=1, linestyle=(0, (5, 3)))
        axes.set(ylim=(0, 1.08), yticks=[0, 1])
        axes.tick_params(labelsize=7)
        axes.set_ylabel(active.keyword, rotation=0, ha="right", va="center")
    free_s = 0.0  # of the lower of two lines
    for one in heard.detections:
        for axes in (wave, names[one.keyword]):
            axes.axvspan(start_s + one.start_s, start_s + one.end_s, color=_FOUND, alpha=0.25, linewidth=0)
        line = 0 if one.start_s >= free_s else 1
        above = (start_s + one.start_s, 1.06 + 0.14 * line)
        wave.annotate(one.keyword, above, xycoords=("data", "axes fraction"), fontsize=8)
        if line == 0:
            free_s = one.start_s + len(one.keyword) * _LETTER_INCHES * timeline.duration_s / width
    figure.axes[-1].set_xlabel(
        "seconds (dashed: the threshold; shaded: where a keyword was said; its score rises a moment after)"
    )
    return figure
