"""`earmark plot`: a recording with what was heard in it, as a page that plays it or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from earmark_client.errors import InvalidRequestError, NotInstalledError, RecordingError
from earmark_client.recording import Recording

from earmark_cli.connection import connected
from earmark_cli.output.printer import notice
from earmark_cli.output.progress_bar import progress_bar
from earmark_cli.plot.scores import blocks, hear
from earmark_cli.plot.timeline import Timeline
from earmark_cli.streaming import keyword_settings

if TYPE_CHECKING:
    import argparse

    from earmark_cli.plot.timeline import Samples

LONGEST_S = 600.0


def plot(args: argparse.Namespace) -> int:
    """Hear one recording and draw it."""
    if args.out.suffix == ".html":
        from earmark_cli.plot.html_page import write
    elif args.out.suffix == ".png":
        try:
            from earmark_cli.plot.image import write
        except ImportError as error:
            raise NotInstalledError(
                f"a picture needs matplotlib ({error}): `pip install 'earmark[plot]'`, or write a page, "
                f"{args.out.with_suffix('.html')}, which needs nothing more"
            ) from error
    else:
        raise InvalidRequestError(f"{args.out}: give a name that ends in .html or .png")
    with Recording(args.file) as recording:
        samples, rate_hz = _part(recording, args.start, args.end), recording.sample_rate_hz
    with connected(args) as (_, client), progress_bar(args.file, len(samples) / rate_hz) as on_progress:
        heard = hear(
            client,
            blocks(samples, rate_hz),
            sample_rate_hz=rate_hz,
            model=args.model,
            keywords=keyword_settings(client, args),
            on_progress=on_progress,
        )
    timeline = Timeline(Path(args.file).name, args.start, rate_hz, samples, heard)
    try:
        write(timeline, args.out)
    except OSError as error:
        raise RecordingError(f"{args.out} cannot be written: {error.strerror}") from error
    notice(f"{args.out}: {timeline.summary}")
    return 0


def _part(recording: Recording, start_s: float, end_s: float | None) -> Samples:
    """Read what is to be drawn; RecordingError where that is nothing, or too long."""
    first = round(start_s * recording.sample_rate_hz)
    last = None if end_s is None else round(end_s * recording.sample_rate_hz)
    most = round(LONGEST_S * recording.sample_rate_hz)
    parts: list[Samples] = []
    position = taken = 0
    for block in recording:
        samples = np.frombuffer(block, "<i2")
        part = samples[max(0, first - position) : None if last is None else max(0, last - position)]
        parts.append(part)
        taken, position = taken + len(part), position + len(samples)
        if taken > most:
            raise RecordingError(
                f"{recording.path}: at most {LONGEST_S / 60:g} minutes can be drawn: choose them with "
                "--from SECONDS --to SECONDS"
            )
        if last is not None and position >= last:
            break
    if not taken:
        raise RecordingError(
            f"{recording.path}: nothing of it lies in what --from and --to leave: it has "
            f"{position / recording.sample_rate_hz:.1f} s"
        )
    return np.concatenate(parts)
