"""Thresholds that the verdicts suggest: what a higher one would leave of the wrong and the right clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from earmark_cli.review.reviewed_clips import Clip

_MIN_WRONG = 4
"""Fewer false alarms say little about the next ones."""


def raised_threshold(wrong: Sequence[float]) -> float:
    """Return a threshold that at most a third of the confidences reach.

    In other recordings more remain, because the threshold is chosen on these.
    """
    ranked = sorted(wrong, reverse=True)
    left = len(ranked) // 3
    # Ties: all confidences that equal the first one to be left out are left out.
    above = min((c for c in ranked[:left] if c > ranked[left]), default=1.0)
    return _shortest_between(ranked[left], above)


def suggestions(clips: Iterable[Clip]) -> Iterator[str]:
    """Yield a line for each keyword with enough clips that are wrong."""
    by_keyword: dict[str, tuple[list[float], list[float]]] = {}
    for clip in clips:
        if clip.verdict is not None:
            wrong, right = by_keyword.setdefault(str(clip.fields.get("keyword")), ([], []))
            (wrong if clip.verdict == "wrong" else right).append(float(clip.fields["confidence"]))
    for keyword, (wrong, right) in sorted(by_keyword.items()):
        if len(wrong) >= _MIN_WRONG and min(wrong) < max(wrong):
            threshold = raised_threshold(wrong)
            left, kept = (sum(c >= threshold for c in of) for of in (wrong, right))
            yield (
                f"{keyword}: with a threshold of {threshold}, {left} of {len(wrong)} wrong "
                f"detections remain, and {kept} of {len(right)} right ones"
            )


def _shortest_between(low: float, high: float) -> float:
    """Return the number with the fewest decimals that is greater than `low` and at most `high`."""
    for decimals in range(2, 12):
        middle = round((low + high) / 2, decimals)
        if low < middle <= high:
            return middle
    return high
