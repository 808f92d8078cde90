"""The delay of detections: from the end of a word, as a microphone in real time records it, to the event."""

from __future__ import annotations

import bisect
import json
from typing import TYPE_CHECKING

from benchmarks.loadgen.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.loadgen.speech import Speech


def word_ends_s(recording: Path) -> list[float]:
    """Return where the keywords of a recording end, in order; nothing if it has no labels.

    Labels are a JSON file of the same name, as `demo.json`: `said` is a list of objects with `keyword` and
    `end_s`. Raises BenchmarkError for another content.
    """
    labels = recording.with_suffix(".json")
    if not labels.is_file():
        return []
    try:
        said = json.loads(labels.read_bytes())["said"]
        return sorted(float(one["end_s"]) for one in said if one.get("keyword"))
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise BenchmarkError(f"{labels}: no labels as in demo.json: {error!r}") from error


def delays_s(positions_s: Iterable[float], word_ends_s: Sequence[float], speech: Speech) -> list[float]:
    """Return how long before each position the last word ended, in a recording that is played in a loop.

    `positions_s` count from the start of the recording, and go on when it starts again.
    """
    if not word_ends_s:
        return []
    length_s = len(speech.chunks) * speech.chunk_s
    ends_s = [word_ends_s[-1] - length_s, *word_ends_s]
    inside = [position_s % length_s for position_s in positions_s]
    return [at_s - ends_s[bisect.bisect_right(ends_s, at_s) - 1] for at_s in inside]
