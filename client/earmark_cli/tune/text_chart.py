"""A curve in a few lines of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_cli.tune.thresholds import Evidence

_WIDTH, _HEIGHT = 48, 5
_BARS = " ▁▂▃▄▅▆▇█"


def sketch(evidence: Evidence) -> list[str]:
    """Draw the share of a keyword's recordings that is missed over the false alarms an hour it gives.

    The leftmost column is for none; from then on their number grows by the same factor from one column
    to the next. Nothing is drawn where nothing is missed, or there is no audio to give false alarms.
    """
    trade = evidence.trade()
    if not evidence.hours or not any(trade):
        return []
    most = max(10, len(trade) - 1)
    counts = [0, *(most ** (i / (_WIDTH - 2)) for i in range(_WIDTH - 1))]
    missed = [trade[min(len(trade) - 1, math.floor(count + 1e-9))] for count in counts]
    top = max(1, *missed)
    eighths = [math.ceil(one / top * _HEIGHT * 8) for one in missed]
    lines = []
    for row in reversed(range(_HEIGHT)):
        label = f"{top / len(evidence.said):.1%} missed" if row == _HEIGHT - 1 else "0%" if row == 0 else ""
        bars = "".join(_BARS[min(8, max(0, height - 8 * row))] for height in eighths)
        lines.append(f"  {label:>13} {bars}".rstrip())
    first, last = f"0 {_short(1 / evidence.hours)}", _short(most / evidence.hours)
    lines.append(f"  {'':>13} {first}{last:>{_WIDTH - len(first)}}  false alarms per hour")
    return lines


def _short(rate: float) -> str:
    return f"{rate:.2g}" if rate < 10 else f"{rate:.0f}"
