"""The timeline of a recording as an image, drawn by matplotlib (extra `plot`).

Colours: Okabe and Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from earmark_cli.output.console import printable
from earmark_cli.plot.spectrogram import BANDS, band_hz, mel_spectrogram

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_cli.plot.timeline import Timeline

_CURVE, _THRESHOLD, _DETECTION, _WAVE = "#0072b2", "#d55e00", "#009e73", "#555555"
_DPI = 110
_INCHES_PER_S = 0.5
_LETTER_INCHES = 0.09
_MIN_INCHES, _MAX_INCHES = 10.0, 60.0


def write_image(timeline: Timeline, path: Path) -> None:
    """Write the image. Raises OSError if that fails."""
    # Names may contain $, which matplotlib would parse as mathematics.
    with rc_context({"text.parse_math": False}):
        draw(timeline).savefig(path, dpi=_DPI)


def draw(timeline: Timeline) -> Figure:
    """Draw the waveform, the mel spectrogram and the scores of the keywords below each other."""
    track, start_s = timeline.track, timeline.start_s
    end_s = start_s + timeline.duration_s
    width = min(_MAX_INCHES, max(_MIN_INCHES, _INCHES_PER_S * timeline.duration_s))
    columns = min(round(width * _DPI), len(timeline.samples))
    heights = [1.1, 1.5, *[0.5] * len(timeline.drawn)]
    figure = Figure(figsize=(width, sum(heights) + 1), layout="constrained")
    wave, mel, *rows = figure.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]

    envelope = timeline.envelope(columns)
    times_s = start_s + (np.arange(columns) + 0.5) * timeline.duration_s / columns
    wave.fill_between(times_s, envelope[:, 0] / 127, envelope[:, 1] / 127, color=_WAVE, linewidth=0)
    wave.set(ylim=(-1, 1), yticks=[], xlim=(start_s, end_s))
    wave.set_ylabel("waveform", rotation=0, ha="right", va="center")
    wave.set_title(printable(f"{timeline.name}: {timeline.summary}"), loc="left", fontsize=10, pad=28)

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

    rows_by_keyword = {}
    for axes, i in zip(rows, timeline.drawn, strict=True):
        active = track.started.keywords[i]
        rows_by_keyword[active.keyword] = axes
        axes.plot(start_s + track.offsets_s, track.scores[:, i], color=_CURVE, linewidth=1.2)
        axes.axhline(active.threshold, color=_THRESHOLD, linewidth=1, linestyle=(0, (5, 3)))
        axes.set(ylim=(0, 1.08), yticks=[0, 1])
        axes.tick_params(labelsize=7)
        axes.set_ylabel(printable(active.keyword), rotation=0, ha="right", va="center")
    free_s = 0.0  # where the lower of two lines of names is free
    for detection in track.detections:
        for axes in (wave, rows_by_keyword[detection.keyword]):
            axes.axvspan(
                start_s + detection.start_s,
                start_s + detection.end_s,
                color=_DETECTION,
                alpha=0.25,
                linewidth=0,
            )
        line = 0 if detection.start_s >= free_s else 1
        above = (start_s + detection.start_s, 1.06 + 0.14 * line)
        wave.annotate(printable(detection.keyword), above, xycoords=("data", "axes fraction"), fontsize=8)
        if line == 0:
            free_s = detection.start_s + len(detection.keyword) * _LETTER_INCHES * timeline.duration_s / width
    figure.axes[-1].set_xlabel(
        "seconds (dashed: threshold; shaded: detections; scores rise shortly after the keyword)"
    )
    return figure
