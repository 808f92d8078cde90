"""A DET curve as a few lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_cli.tune.operating_point import KeywordScores

_WIDTH, _HEIGHT = 48, 5
_BARS = " ▁▂▃▄▅▆▇█"


def det_chart(scores: KeywordScores) -> list[str]:
    """Return the lines of a chart: missed recordings over false alarms per hour.

    The first column means no false alarms. From column to column the number of false alarms grows by the
    same factor. Returns no lines if nothing is missed, or if there is no other audio.
    """
    curve = scores.misses_by_alarms()
    if not scores.other_hours or not any(curve):
        return []
    max_alarms = max(10, scores.useful_alarms)
    alarms = [0, *(max_alarms ** (i / (_WIDTH - 2)) for i in range(_WIDTH - 1))]
    missed = [curve[min(len(curve) - 1, math.floor(count + 1e-9))] for count in alarms]
    top = max(1, *missed)
    eighths = [math.ceil(count / top * _HEIGHT * 8) for count in missed]
    lines = []
    for row in reversed(range(_HEIGHT)):
        label = ""
        if row == _HEIGHT - 1:
            label = f"{top / len(scores.recording_scores):.1%} missed"
        elif row == 0:
            label = "0%"
        bars = "".join(_BARS[min(8, max(0, height - 8 * row))] for height in eighths)
        lines.append(f"  {label:>13} {bars}".rstrip())
    first, last = f"0 {short_rate(1 / scores.other_hours)}", short_rate(max_alarms / scores.other_hours)
    lines.append(f"  {'':>13} {first}{last:>{_WIDTH - len(first)}}  false alarms per hour")
    return lines


def short_rate(rate: float) -> str:
    """Return a rate with two digits, or as a whole number."""
    return f"{rate:.2g}" if rate < 10 else f"{rate:.0f}"
