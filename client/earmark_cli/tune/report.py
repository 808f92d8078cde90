"""Printed results of `earmark tune`: operating points, options to use, and warnings."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from earmark_cli.output.console import can_encode, notice, print_line
from earmark_cli.output.printer import print_json
from earmark_cli.tune.det_chart import det_chart

if TYPE_CHECKING:
    from collections.abc import Collection

    from earmark_cli.tune.operating_point import KeywordScores, OperatingPoint

_FEW_RECORDINGS = 30
# "Rule of three" (Hanley and Lippman-Hand 1983): no event in a time t shows, with 95% confidence, a rate
# below 3/t.
_RULE_OF_THREE = 3.0


def print_points(scores: KeywordScores, proposed: OperatingPoint) -> None:
    """Print a keyword's misses and false alarms by threshold, as a table and a chart."""
    recordings, hours = len(scores.recording_scores), scores.other_hours
    print_line(f"{scores.active.keyword}: {recordings} recordings, {hours:.2f} h of other audio")
    print_line("  threshold  missed            false alarms  per hour")
    remarks = {scores.current: "current", proposed: "proposed"}
    points = {*scores.det_points(), scores.current, proposed}
    for point in sorted(points, key=lambda point: point.threshold):
        rate = f"{point.alarms / hours:.2f}" if hours else "-"
        missed = f"{point.missed} ({point.missed / recordings:.1%})"
        line = f"  {point.threshold:<9.4g}  {missed:<16}  {point.alarms:>12}  {rate:>8}"
        print_line(f"{line}  {remarks.get(point, '')}".rstrip())
    chart = det_chart(scores)
    if can_encode("".join(chart)):
        for line in chart:
            print_line(line)


def print_points_as_json(scores: KeywordScores, proposed: OperatingPoint) -> None:
    """Print a JSON line of type `tuned`."""
    print_json(
        "tuned",
        keyword=scores.active.keyword,
        recordings=len(scores.recording_scores),
        other_audio_h=scores.other_hours,
        current=asdict(scores.current),
        proposed=asdict(proposed),
        curve=[asdict(point) for point in scores.det_points()],
    )


def warn(all_scores: Collection[KeywordScores], alarms_per_hour: float) -> None:
    """Print notices about recordings that are too few for reliable thresholds."""
    few = [scores.active.keyword for scores in all_scores if len(scores.recording_scores) < _FEW_RECORDINGS]
    if few:
        notice(
            f"earmark: fewer than {_FEW_RECORDINGS} recordings of {', '.join(few)}: their thresholds are "
            "only estimates"
        )
    hours = min(scores.other_hours for scores in all_scores)
    if hours == 0:
        notice(
            "earmark: there is no audio without the keyword, so the false alarms are unknown: add some to DIR"
        )
    elif _RULE_OF_THREE / hours > alarms_per_hour:
        notice(
            f"earmark: {hours:.2f} h of audio without the keyword cannot show fewer than "
            f"{_RULE_OF_THREE / hours:.2g} false alarms per hour: add audio, {alarms_per_hour:g} per hour "
            f"needs {_RULE_OF_THREE / alarms_per_hour:.2g} h"
        )
    for scores in all_scores:
        alarms = scores.point_for(alarms_per_hour).alarms
        if scores.other_hours and alarms > alarms_per_hour * scores.other_hours:
            notice(
                f"earmark: no threshold of {scores.active.keyword} reaches {alarms_per_hour:g} false alarms "
                "per hour: check the false alarms with `earmark spot` and `earmark plot`"
            )
