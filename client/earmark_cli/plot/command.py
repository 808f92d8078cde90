"""`earmark plot`: draw a recording with its scores and detections."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio import FORMATS_HELP
from earmark_audio.extras import install_command
from earmark_audio.progress import Progress
from earmark_client.errors import InvalidRequestError, NotInstalledError, RecordingError

from earmark_cli.audio_sources import concerns_one_recording, open_recording
from earmark_cli.connection import connected
from earmark_cli.keyword_options import keyword_options, keyword_settings
from earmark_cli.options import (
    add_command,
    channel_option,
    json_option,
    model_option,
    offset_seconds,
    positive_seconds,
    server_options,
)
from earmark_cli.output.console import notice, printable
from earmark_cli.output.files import check_writable
from earmark_cli.output.printer import detection_fields, make_printer, print_json
from earmark_cli.plot.timeline import Timeline
from earmark_cli.score_track import collect_scores
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from earmark_client.recording import Recording

    from earmark_cli.options import Commands
    from earmark_cli.plot.timeline import Samples

_LONGEST_S = 600.0


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "plot",
        "draw a recording with its scores and detections",
        run,
        server_options(),
        json_option(),
        model_option(),
        keyword_options(),
        channel_option(),
    )
    parser.add_argument(
        "file", metavar="FILE", help=f"a recording: {FORMATS_HELP}. - reads a recording from standard input"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("timeline.html"),
        metavar="FILE",
        help="a page that plays the recording (.html), or an image (.png, requires matplotlib); "
        "default: timeline.html",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=offset_seconds,
        default=0.0,
        metavar="SECONDS",
        help="start of the drawn part (default: 0)",
    )
    parser.add_argument(
        "--to",
        dest="end",
        type=positive_seconds,
        metavar="SECONDS",
        help=f"end of the drawn part, at most {_LONGEST_S / 60:g} minutes after --from "
        "(default: end of the recording)",
    )


def run(args: argparse.Namespace) -> int:
    """Collect the scores of one recording, and draw them."""
    if args.end is not None and args.start >= args.end:
        raise UsageError(f"--from {args.start:g} must be before --to {args.end:g}")
    write = _writer(args.out)
    check_writable(args.out)
    printer = make_printer(args)
    with open_recording(args.file, channel=args.channel) as recording:
        samples, damage = _read_part(recording, args.start, args.end)
        rate_hz = recording.sample_rate_hz
    try:
        with (
            connected(args) as (_, client),
            Progress() as progress,
            progress.phase(args.file, total=len(samples) / rate_hz) as phase,
        ):
            track = collect_scores(
                client,
                _blocks(samples, rate_hz),
                sample_rate_hz=rate_hz,
                model=args.model,
                keywords=keyword_settings(client, args, [args.model]),
                on_progress=phase.set,
            )
    except InvalidRequestError as error:
        if not concerns_one_recording(error):
            raise
        printer.failure(args.file, error)
        return 1
    timeline = Timeline(printable(recording.path.name), args.start, rate_hz, samples, track)
    try:
        write(timeline, args.out)
    except OSError as error:
        raise RecordingError(f"{args.out} cannot be written: {error.strerror}") from error
    if args.json:
        _print_json(args.file, args.out, timeline)
    else:
        notice(f"{args.out}: {timeline.summary}")
    for one in recording.notices:
        printer.warning(args.file, one)
    if damage:
        printer.failure(args.file, damage)
        return 1
    return 0


def _print_json(source: str, out: Path, timeline: Timeline) -> None:
    """Print a line of type `plot`."""
    started, begin_s = timeline.track.started, timeline.start_s
    detections = [
        replace(one, start_s=begin_s + one.start_s, end_s=begin_s + one.end_s)
        for one in timeline.track.detections
    ]
    print_json(
        "plot",
        source=source,
        out=str(out),
        start_s=begin_s,
        end_s=begin_s + timeline.duration_s,
        model=started.model,
        model_version=started.model_version,
        keywords=[asdict(active) for active in started.keywords],
        detections=[detection_fields(one) for one in detections],
    )


def _writer(out: Path) -> Callable[[Timeline, Path], None]:
    """Return the function that writes such a file. Raises EarmarkError if there is none."""
    if out.suffix == ".html":
        from earmark_cli.plot.timeline_page import write_page

        return write_page
    if out.suffix != ".png":
        raise UsageError(f"{out}: give a name that ends in .html or .png")
    try:
        from earmark_cli.plot.timeline_image import write_image
    except ImportError as error:
        raise NotInstalledError(
            f"an image requires matplotlib ({error}): {install_command('plot')}, or write a page, "
            f"{out.with_suffix('.html')}, which requires nothing else"
        ) from error
    return write_image


def _read_part(
    recording: Recording, start_s: float, end_s: float | None
) -> tuple[Samples, RecordingError | None]:
    """Read the part to draw; return it, and the error that ended a truncated or damaged recording.

    Raises RecordingError if the part is empty or too long.
    """
    first = round(start_s * recording.sample_rate_hz)
    last = None if end_s is None else round(end_s * recording.sample_rate_hz)
    limit = round(_LONGEST_S * recording.sample_rate_hz)
    parts: list[Samples] = []
    position = length = 0
    damage: RecordingError | None = None
    blocks = iter(recording)
    while True:
        try:
            block = next(blocks, None)
        except RecordingError as error:
            damage = error
            break
        if block is None:
            break
        samples = np.frombuffer(block, "<i2")
        part = samples[max(0, first - position) : None if last is None else max(0, last - position)]
        parts.append(part)
        length, position = length + len(part), position + len(samples)
        if length > limit:
            raise RecordingError(
                f"{recording.path}: at most {_LONGEST_S / 60:g} minutes can be drawn: choose them with "
                "--from SECONDS --to SECONDS"
            )
        if last is not None and position >= last:
            break
    if not length:
        if damage:
            raise damage
        raise RecordingError(
            f"{recording.path}: there is no audio between --from and --to: the recording is "
            f"{position / recording.sample_rate_hz:.1f} s long"
        )
    return np.concatenate(parts), damage


def _blocks(samples: Samples, sample_rate_hz: int) -> Iterator[Samples]:
    """Split samples into blocks of one second."""
    for start in range(0, len(samples), sample_rate_hz):
        yield samples[start : start + sample_rate_hz]
