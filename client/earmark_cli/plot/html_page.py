"""A timeline as one HTML page that needs nothing beside it: its data and its sound are inside."""

from __future__ import annotations

import base64
import io
import json
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from earmark_cli.plot.spectrogram import BANDS, band_hz, mel_spectrogram

if TYPE_CHECKING:
    from earmark_cli.plot.timeline import Timeline

_TEMPLATE = Path(__file__).with_name("page.html")
# A column for every 5 ms and 10 ms, as far as that goes.
_WAVE_COLUMN_S, _MEL_COLUMN_S = 0.005, 0.01
_MOST_COLUMNS = 12_000


def write(timeline: Timeline, path: Path) -> None:
    """Write the page; OSError where that cannot be."""
    path.write_text(html(timeline), encoding="utf-8")


def html(timeline: Timeline) -> str:
    """Return the page."""
    heard = timeline.heard
    wave = timeline.envelope(_columns(timeline, _WAVE_COLUMN_S, 10 * _MOST_COLUMNS))
    mel = mel_spectrogram(
        timeline.samples, timeline.sample_rate_hz, _columns(timeline, _MEL_COLUMN_S, _MOST_COLUMNS)
    )
    sound = io.BytesIO()
    soundfile.write(sound, timeline.samples, timeline.sample_rate_hz, format="FLAC", subtype="PCM_16")
    data = {
        "start_s": timeline.start_s,
        "duration_s": timeline.duration_s,
        "wave": _base64(wave.tobytes()),
        "mel": _base64(mel.tobytes()),
        "mel_bands": BANDS,
        "mel_hz": [round(float(hz)) for hz in band_hz()[1:-1]],
        "offsets_s": [round(float(offset), 4) for offset in heard.offsets_s],
        "keywords": [
            {
                "keyword": heard.started.keywords[i].keyword,
                "threshold": round(heard.started.keywords[i].threshold, 4),
                "scores": _base64(np.rint(255 * heard.scores[:, i]).astype(np.uint8).tobytes()),
            }
            for i in timeline.shown
        ],
        "detections": [
            {
                "keyword": one.keyword,
                "confidence": round(one.confidence, 4),
                "start_s": round(one.start_s, 3),
                "end_s": round(one.end_s, 3),
            }
            for one in heard.detections
        ],
    }
    lowest = ""
    if timeline.hidden:
        lowest = f"Not near being heard anywhere: {', '.join(timeline.hidden)}."
    parts = {
        "TITLE": escape(timeline.name),
        "SUMMARY": escape(timeline.summary),
        "HIDDEN": escape(lowest),
        "SOUND": f"data:audio/flac;base64,{_base64(sound.getvalue())}",
        # In a script nothing may look like the end of it.
        "DATA": json.dumps(data).replace("<", "\\u003c"),
    }
    before, *pieces = _TEMPLATE.read_text(encoding="utf-8").split("@@")
    # Between two marks there is a part's name, and then what follows it.
    return before + "".join(parts[piece] if i % 2 == 0 else piece for i, piece in enumerate(pieces))


def _columns(timeline: Timeline, seconds: float, most: int) -> int:
    return min(most, max(1, round(timeline.duration_s / seconds)), len(timeline.samples))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
