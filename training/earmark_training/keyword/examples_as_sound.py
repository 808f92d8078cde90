"""Examples for the report, as sound: the keywords that were missed by most, and the false alarms."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.keyword.held_out_conditions import held_out_surroundings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from earmark_training.keyword.results import KeywordResults
    from earmark_training.keyword.training_set import TrainingSet

_MOST = 8
_BEFORE_S, _AFTER_S = 1.5, 1.0
_PEAK = 0.7


@dataclass(frozen=True, slots=True)
class Sound:
    """A piece of audio in the report: its caption, and a data URL."""

    caption: str
    url: str


def missed_sounds(training_set: TrainingSet, document: dict[str, Any]) -> list[Sound]:
    """Return the examples with the lowest margins, worst first."""
    examples = training_set.measured
    return [
        Sound(
            f"{take['file']}, margin {take['margin']:.1f}",
            _url(training_set.corpus.samples(examples[take["index"]])),
        )
        for take in document["takes"][:_MOST]
    ]


def false_alarm_sounds(training_set: TrainingSet, results: KeywordResults, seed: int) -> list[Sound]:
    """Return the audio around the highest peaks in the held-out speech, highest first."""
    surroundings = held_out_surroundings(training_set)
    sounds = []
    for alarm in results.alarms()[:_MOST]:
        samples = surroundings.place(alarm.condition, alarm.recording, seed)
        start = max(0, alarm.middle - int(_BEFORE_S * SAMPLE_RATE_HZ))
        kind = "false alarm" if alarm.score >= results.threshold else "below the threshold"
        caption = f"{kind}, score {alarm.score:.3f}, {alarm.condition}"
        sounds.append(Sound(caption, _url(samples[start : alarm.middle + int(_AFTER_S * SAMPLE_RATE_HZ)])))
    return sounds


def _url(samples: NDArray[np.float32]) -> str:
    """Return audio as a data URL that browsers play, 16-bit PCM in a WAV file."""
    scaled = samples * np.float32(_PEAK / (np.abs(samples).max() + 1e-6))
    out = io.BytesIO()
    soundfile.write(out, scaled, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return "data:audio/wav;base64," + base64.b64encode(out.getvalue()).decode()
