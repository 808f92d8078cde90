"""Printed results of `earmark tune`: operating points, options to use, and warnings."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from earmark_cli.output.console import can_encode, notice, print_line, printable
from earmark_cli.output.printer import print_json
from earmark_cli.tune.det_chart import det_chart, short_rate
from earmark_cli.tune.operating_point import MIN_RECORDINGS, hours_for

if TYPE_CHECKING:
    from collections.abc import Collection

    from earmark_cli.tune.operating_point import KeywordScores, OperatingPoint


def print_table(tuned: Collection[tuple[KeywordScores, OperatingPoint]]) -> None:
    """Print one row per keyword: its threshold, its misses and its false alarms, now and as proposed."""
    header = ("keyword", "recordings", "other audio", "threshold", "missed", "false alarms per hour")
    rows = [header]
    for scores, proposed in tuned:
        recordings, kept = len(scores.recording_scores), proposed == scores.current
        points = [proposed] if kept else [scores.current, proposed]
        rows.append(
            (
                printable(scores.active.keyword),
                str(recordings),
                f"{scores.other_hours:.2f} h",
                " -> ".join(f"{point.threshold:.4g}" for point in points) + " (kept)" * kept,
                " -> ".join(f"{point.missed} ({point.missed / recordings:.0%})" for point in points),
                " -> ".join(_rate(scores, point.alarms) for point in points),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rate(scores: KeywordScores, alarms: int) -> str:
    if not scores.other_hours:
        return "unknown"
    return short_rate(alarms / scores.other_hours) if alarms else f"0 to {short_rate(scores.lowest_rate)}"


def print_points(scores: KeywordScores, proposed: OperatingPoint) -> None:
    """Print a keyword's misses and false alarms by threshold, as a table and a chart: `--details`."""
    recordings, hours = len(scores.recording_scores), scores.other_hours
    print_line(f"{scores.active.keyword}: {recordings} recordings, {hours:.2f} h of other audio")
    print_line("  threshold  missed            false alarms  per hour")
    remarks = {scores.current: "current", proposed: "proposed"}
    if proposed == scores.current:
        remarks = {proposed: "current, kept"}
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
    few = [scores.active.keyword for scores in all_scores if len(scores.recording_scores) < MIN_RECORDINGS]
    if few:
        notice(
            f"earmark: fewer than {MIN_RECORDINGS} recordings of {', '.join(few)}: thresholds are raised "
            "only to avoid false alarms that were counted"
        )
    hours = min(scores.other_hours for scores in all_scores)
    if hours == 0:
        notice(
            "earmark: there is no audio without the keyword, so the false alarms are unknown: add some to DIR"
        )
    elif hours < hours_for(alarms_per_hour):
        lowest = max(scores.lowest_rate for scores in all_scores)
        notice(
            f"earmark: {hours:.2f} h of audio without the keyword cannot show fewer than "
            f"{short_rate(lowest)} false alarms per hour, so no threshold is lowered: add audio, "
            f"{alarms_per_hour:g} per hour needs {hours_for(alarms_per_hour):.2g} h"
        )
    for scores in all_scores:
        alarms = scores.point_for(alarms_per_hour).alarms
        if scores.other_hours and alarms > alarms_per_hour * scores.other_hours:
            notice(
                f"earmark: no threshold of {scores.active.keyword} reaches {alarms_per_hour:g} false alarms "
                "per hour: check the false alarms with `earmark spot` and `earmark plot`"
            )
