"""The timeline of a recording as one HTML page that contains its data and its sound."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from earmark_cli.output.html_page import fill_template, html_page
from earmark_cli.plot.spectrogram import BANDS, band_hz, mel_spectrogram

if TYPE_CHECKING:
    from earmark_cli.plot.timeline import Timeline

_BODY, _STYLE, _SCRIPT = (Path(__file__).with_suffix(suffix) for suffix in (".html", ".css", ".js"))
# One column for each 5 ms of waveform and 10 ms of spectrogram, up to a limit.
_WAVE_COLUMN_S, _MEL_COLUMN_S = 0.005, 0.01
_MAX_COLUMNS = 12_000


def write_page(timeline: Timeline, path: Path) -> None:
    """Write the page. Raises OSError if that fails."""
    path.write_text(page(timeline), encoding="utf-8")


def page(timeline: Timeline) -> str:
    """Return the page."""
    sound = io.BytesIO()
    soundfile.write(sound, timeline.samples, timeline.sample_rate_hz, format="FLAC", subtype="PCM_16")
    undrawn = ""
    if timeline.undrawn:
        undrawn = f"Scores near 0 everywhere, not drawn: {', '.join(timeline.undrawn)}."
    body = fill_template(
        _BODY.read_text(encoding="utf-8"),
        {
            "SUMMARY": escape(timeline.summary),
            "UNDRAWN": escape(undrawn),
            "SOUND": f"data:audio/flac;base64,{_base64(sound.getvalue())}",
        },
    )
    # "<" is escaped, because "</script>" within a string would end the script.
    data = json.dumps(_data(timeline)).replace("<", "\\u003c")
    script = f'"use strict";\nconst data = {data};\n{_SCRIPT.read_text(encoding="utf-8")}'
    return html_page(timeline.name, body, style=_STYLE.read_text(encoding="utf-8"), script=script)


def _data(timeline: Timeline) -> dict[str, object]:
    """Return the data that the script draws."""
    track = timeline.track
    wave = timeline.envelope(_columns(timeline, _WAVE_COLUMN_S, 10 * _MAX_COLUMNS))
    mel = mel_spectrogram(
        timeline.samples, timeline.sample_rate_hz, _columns(timeline, _MEL_COLUMN_S, _MAX_COLUMNS)
    )
    return {
        "start_s": timeline.start_s,
        "duration_s": timeline.duration_s,
        "wave": _base64(wave.tobytes()),
        "mel": _base64(mel.tobytes()),
        "mel_bands": BANDS,
        "mel_hz": [round(float(hz)) for hz in band_hz()[1:-1]],
        "offsets_s": [round(float(offset), 4) for offset in track.offsets_s],
        "keywords": [
            {
                "keyword": track.started.keywords[i].keyword,
                "threshold": round(track.started.keywords[i].threshold, 4),
                "scores": _base64(np.rint(255 * track.scores[:, i]).astype(np.uint8).tobytes()),
            }
            for i in timeline.drawn
        ],
        "detections": [
            {
                "keyword": detection.keyword,
                "confidence": round(detection.confidence, 4),
                "start_s": round(detection.start_s, 3),
                "end_s": round(detection.end_s, 3),
            }
            for detection in track.detections
        ],
    }


def _columns(timeline: Timeline, seconds: float, limit: int) -> int:
    return min(limit, max(1, round(timeline.duration_s / seconds)), len(timeline.samples))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
