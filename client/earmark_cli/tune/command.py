"""`earmark tune`: choose thresholds with your own recordings."""

from __future__ import annotations

import argparse
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_audio import FORMATS_HELP, find_recordings
from earmark_audio.extras import install_command
from earmark_audio.progress import Progress
from earmark_client.audio import KeywordSetting, Silence
from earmark_client.errors import InvalidRequestError, NotInstalledError, RecordingError
from earmark_client.recording import Recording

from earmark_cli.audio_sources import concerns_one_recording
from earmark_cli.connection import connected
from earmark_cli.options import (
    add_command,
    channel_option,
    json_option,
    model_option,
    number,
    server_options,
)
from earmark_cli.output.console import notice, print_line, printable
from earmark_cli.output.files import check_writable, file_size
from earmark_cli.output.printer import make_printer
from earmark_cli.score_track import collect_scores, with_final_scores
from earmark_cli.tune.operating_point import KeywordScores, peak_scores
from earmark_cli.tune.report import print_points, print_points_as_json, print_table, warn
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from earmark_audio.progress import Phase
    from earmark_client.audio import Chunk
    from earmark_client.sync_client import SyncClient

    from earmark_cli.options import Commands
    from earmark_cli.output.printer import Printer
    from earmark_cli.score_track import ScoreTrack
    from earmark_cli.tune.operating_point import OperatingPoint

_FOLDER_LAYOUT = """\
DIR/<keyword>/...  recordings of that keyword, one utterance each
DIR/...            everything else: audio without any keyword, such as other
                   words, conversation and noise; the more the better. For each
                   keyword, recordings of the other keywords count too.
"""

# The score of a keyword peaks after the keyword, so silence is appended to each recording.
_PAUSE_S = 1.0

_ANY_SCORE = 0.0001
"""A threshold that the final score of every proposal reaches."""


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "tune",
        "choose thresholds with your own recordings",
        run,
        server_options(),
        json_option(),
        model_option(),
        channel_option(),
    )
    parser.epilog = _FOLDER_LAYOUT
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help=f"the folder with the recordings: {FORMATS_HELP}"
    )
    parser.add_argument(
        "--fa-per-hour",
        type=_rate_per_hour,
        default=0.5,
        metavar="N",
        help="allowed false alarms per hour of each keyword (default: 0.5)",
    )
    parser.add_argument(
        "--details",
        action="store_true",
        help="also print the misses and false alarms of each keyword by threshold",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="also draw the DET curves: an image (.png, .svg) or a page (.html); requires matplotlib",
    )


def run(args: argparse.Namespace) -> int:
    """Score all recordings of a folder; print and draw operating points, and the options to use."""
    printer = make_printer(args)
    write_plot = _plot_writer(args.out)
    if args.out:
        check_writable(args.out)
    files = _find_recordings(args.folder)
    with connected(args) as (_, client):
        model = client.get_model(args.model)
        active = model.keywords
        recorded = {_keyword_of(path, args.folder) for path in files}
        all_scores = {one.keyword: KeywordScores(one) for one in active if one.keyword in recorded}
        if not all_scores:
            raise RecordingError(
                f"{args.folder} contains no folder named after a keyword of the model "
                f"({', '.join(one.keyword for one in active)}): move the recordings of a keyword to "
                f"{args.folder / active[0].keyword}, one utterance per file"
            )
        failed = _score_files(client, files, args, all_scores, printer, verified=model.verified)
    for keyword in [name for name, scores in all_scores.items() if not scores.recording_scores]:
        notice(f"earmark: no recording of {keyword} could be read, so it has no thresholds")
        del all_scores[keyword]
    if not all_scores:
        return 1
    tuned = [(scores, scores.proposal_for(args.fa_per_hour)) for scores in all_scores.values()]
    for scores, proposed in tuned:
        if args.json:
            print_points_as_json(scores, proposed)
        elif args.details:
            print_points(scores, proposed)
    if not args.json:
        print_table(tuned)
    settings = [f"{scores.active.keyword}={proposed.threshold:g}" for scores, proposed in tuned]
    command = "earmark listen " + " ".join(f"--keyword {shlex.quote(setting)}" for setting in settings)
    if not args.json:
        warn(all_scores.values(), args.fa_per_hour)
        print_line(command)
    if write_plot:
        try:
            write_plot(tuned, printable(args.folder.resolve().name), command, args.out)
        except OSError as error:
            raise RecordingError(f"{args.out} cannot be written: {error.strerror}") from error
    return 1 if failed else 0


def _plot_writer(
    out: Path | None,
) -> Callable[[list[tuple[KeywordScores, OperatingPoint]], str, str, Path], None] | None:
    """Return the function that draws such a file. Raises EarmarkError if there is none.

    This comes first, because scoring the recordings may take long.
    """
    if out is None:
        return None
    if out.suffix not in {".png", ".svg", ".html"}:
        raise UsageError(f"{out}: give a name that ends in .png, .svg or .html")
    try:
        from earmark_cli.tune.det_plot import write_det_plot
    except ImportError as error:
        raise NotInstalledError(
            f"{out} requires matplotlib ({error}): {install_command('plot')}, or omit -o"
        ) from error
    return write_det_plot


def _find_recordings(folder: Path) -> list[Path]:
    if not os.path.isdir(folder):
        raise RecordingError(f"{folder} is not a folder: give the folder with your recordings")
    files, left_out = find_recordings(folder)
    for one in left_out:
        notice(f"earmark: {one.path}: left out: {one.why}")
    if not files:
        raise RecordingError(f"{folder} contains no recordings: {FORMATS_HELP}")
    return files


def _keyword_of(path: Path, folder: Path) -> str:
    """Return the name of the folder in DIR that contains a file, empty for a file in DIR itself."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _score_files(
    client: SyncClient,
    files: list[Path],
    args: argparse.Namespace,
    all_scores: dict[str, KeywordScores],
    printer: Printer,
    *,
    verified: bool,
) -> bool:
    """Add the scores of all files to `all_scores`; return whether any file failed.

    verified: whether thresholds apply to the confidence of detections, instead of the scores.
    """
    failed, done_bytes = False, 0
    sizes = [file_size(path) for path in files]
    with Progress() as progress, progress.phase(str(args.folder), total=sum(sizes)) as phase:
        for number, (path, size) in enumerate(zip(files, sizes, strict=True), 1):
            phase.note = f"recording {number:,} of {len(files):,}"
            try:
                with Recording(path, channel=args.channel) as recording:
                    track = collect_scores(
                        client,
                        _with_pause(recording),
                        sample_rate_hz=recording.sample_rate_hz,
                        model=args.model,
                        keywords=[KeywordSetting(name, _ANY_SCORE) for name in all_scores]
                        if verified
                        else list(all_scores),
                        on_progress=partial(_report_progress, phase, done_bytes, size, recording.duration_s),
                    )
                for one in recording.notices:
                    printer.warning(str(path), one)
                if verified:
                    track = with_final_scores(track)
                _add_scores(track, _keyword_of(path, args.folder), all_scores)
            except (RecordingError, InvalidRequestError) as error:
                if not concerns_one_recording(error):
                    raise
                printer.failure(str(path), error)
                failed = True
            done_bytes += size
            phase.set(done_bytes)
    return failed


def _report_progress(
    phase: Phase,
    done_bytes: float,
    size_bytes: float,
    duration_s: float | None,
    processed_s: float,
) -> None:
    share = min(1.0, processed_s / duration_s) if duration_s else 0.0
    phase.set(done_bytes + size_bytes * share)


def _add_scores(track: ScoreTrack, keyword: str, all_scores: dict[str, KeywordScores]) -> None:
    """Add the scores of a recording of a keyword, or of other audio."""
    length_s = max(0.0, float(track.offsets_s.max(initial=0.0)) - _PAUSE_S)
    for column, (name, scores) in enumerate(all_scores.items()):
        if name == keyword:
            scores.recording_scores.append(float(track.scores[:, column].max(initial=0.0)))
        else:
            scores.other_peaks += peak_scores(track, column).tolist()
            scores.other_hours += length_s / 3600


def _with_pause(recording: Recording) -> Iterator[Chunk]:
    yield from recording
    yield Silence(_PAUSE_S)


def _rate_per_hour(text: str) -> float:
    value = number(text)
    if value is None or not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 3600")
    return value
