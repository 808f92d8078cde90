"""`earmark tune`: how well keywords are heard in recordings of one's own, and the thresholds that fit."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from earmark_client.audio import Silence
from earmark_client.errors import InvalidRequestError, NotInstalledError, RecordingError
from earmark_client.recording import Recording

from earmark_cli.connection import connected
from earmark_cli.output.printer import JsonPrinter, TextPrinter, notice
from earmark_cli.output.progress_bar import progress_bar
from earmark_cli.plot.scores import hear
from earmark_cli.streaming import OF_THE_RECORDING
from earmark_cli.tune.thresholds import Evidence, peaks

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from earmark_client.audio import Chunk
    from earmark_client.sync_client import SyncClient

    from earmark_cli.plot.scores import Heard
    from earmark_cli.tune.thresholds import Point

LAYOUT = """\
DIR/<keyword>/...  recordings in which that keyword is said once
DIR/...            all else: audio in which no keyword is said, such as other
                   words, talk, noise: the longer the better; recordings of one
                   keyword count as such audio for the others
"""

_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
# A word's score peaks after the word: what follows a recording is to be heard out.
_PAUSE_S = 1.0
_FEW = 30
# No event in a time t shows, at 95%, a rate below 3/t (Hanley and Lippman-Hand 1983).
_RULE_OF_THREE = 3.0


def tune(args: argparse.Namespace) -> int:
    """Hear all recordings of a folder; print, and draw, each keyword's curve, and the options that fit."""
    printer: JsonPrinter | TextPrinter = JsonPrinter() if args.json else TextPrinter()
    write = _drawing(args.out)
    files = _find(args.folder)
    with connected(args) as (_, client):
        active = client.get_model(args.model).keywords
        said = {one.keyword for one in active} & {_word(path, args.folder) for path in files}
        if not said:
            raise RecordingError(
                f"{args.folder} holds no folder named like a keyword of the model (it knows "
                f"{', '.join(one.keyword for one in active)}): put recordings of a word into "
                f"{args.folder / active[0].keyword}, one word a file"
            )
        evidence = {one.keyword: Evidence(one) for one in active if one.keyword in said}
        failed = _listen(client, files, args, evidence, printer)
    tuned = [(one, one.proposed(args.fa_per_hour)) for one in evidence.values()]
    for one, proposed in tuned:
        printer.tuned(one, proposed)
    options = [f"--keyword {one.active.keyword}={proposed.threshold:g}" for one, proposed in tuned]
    if not args.json:
        _advise(evidence, args)
        print(f"earmark listen {' '.join(options)}")
    if write:
        try:
            write(tuned, args.folder.resolve().name, f"earmark listen {' '.join(options)}", args.out)
        except OSError as error:
            raise RecordingError(f"{args.out} cannot be written: {error.strerror}") from error
    return 1 if failed else 0


def _drawing(out: Path | None) -> Callable[[list[tuple[Evidence, Point]], str, str, Path], None] | None:
    """Give what draws into such a file, before the recordings are heard, which may take long."""
    if out is None:
        return None
    if out.suffix not in {".png", ".svg", ".html"}:
        raise InvalidRequestError(f"{out}: give a name that ends in .png, .svg or .html")
    try:
        from earmark_cli.tune.det_image import write
    except ImportError as error:
        raise NotInstalledError(
            f"{out} needs matplotlib ({error}): `pip install 'earmark[plot]'`, or leave -o out"
        ) from error
    return write


def _find(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise RecordingError(f"{folder} is no folder: name the one that holds your recordings")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise RecordingError(f"{folder} holds no recordings (WAV, FLAC, Ogg or MP3)")
    return files


def _word(path: Path, folder: Path) -> str:
    """Give the name of the folder in DIR that a file lies in; empty for one in DIR itself."""
    parts = path.relative_to(folder).parts
    return parts[0] if len(parts) > 1 else ""


def _listen(
    client: SyncClient,
    files: list[Path],
    args: argparse.Namespace,
    evidence: dict[str, Evidence],
    printer: JsonPrinter | TextPrinter,
) -> bool:
    """Hear the files, and put what comes of them into the evidence; True if any could not be."""
    failed, done_bytes = False, 0
    sizes = [path.stat().st_size for path in files]
    with progress_bar(str(args.folder), sum(sizes)) as on_progress:
        for path, size in zip(files, sizes, strict=True):
            try:
                with Recording(path) as recording:
                    told = partial(_tell, on_progress, done_bytes, size, recording.duration_s)
                    heard = hear(
                        client,
                        _then_pause(recording),
                        sample_rate_hz=recording.sample_rate_hz,
                        model=args.model,
                        keywords=list(evidence),
                        on_progress=told,
                    )
                _take(heard, _word(path, args.folder), evidence)
            except (RecordingError, InvalidRequestError) as error:
                if isinstance(error, InvalidRequestError) and error.reason not in OF_THE_RECORDING:
                    raise
                printer.failure(str(path), error)
                failed = True
            done_bytes += size
    return failed


def _tell(
    on_progress: Callable[[float], object], done: float, size: float, length_s: float | None, at_s: float
) -> None:
    on_progress(done + size * min(1.0, at_s / length_s) if length_s else done)


def _take(heard: Heard, word: str, evidence: dict[str, Evidence]) -> None:
    length_s = max(0.0, float(heard.offsets_s.max(initial=0.0)) - _PAUSE_S)
    for column, (keyword, one) in enumerate(evidence.items()):
        if keyword == word:
            one.said.append(float(heard.scores[:, column].max(initial=0.0)))
        else:
            one.peaks += peaks(heard, column).tolist()
            one.hours += length_s / 3600


def _advise(evidence: dict[str, Evidence], args: argparse.Namespace) -> None:
    """Say what there is too little of for the options to mean much."""
    few = [keyword for keyword, one in evidence.items() if len(one.said) < _FEW]
    if few:
        notice(f"earmark: fewer than {_FEW} recordings of {', '.join(few)}: take their thresholds as a guess")
    hours = min(one.hours for one in evidence.values())
    if hours == 0:
        notice("earmark: no audio without the keyword, so nothing is known of false alarms: add some to DIR")
    elif _RULE_OF_THREE / hours > args.fa_per_hour:
        notice(
            f"earmark: {hours:.2f} h of audio without the keyword show no rate below "
            f"{_RULE_OF_THREE / hours:.2g} false alarms per hour; for {args.fa_per_hour:g} it takes "
            f"{_RULE_OF_THREE / args.fa_per_hour:.2g} h"
        )
    limit = args.fa_per_hour
    for keyword, one in evidence.items():
        if one.hours and one.proposed(limit).alarms > limit * one.hours:
            notice(
                f"earmark: no threshold of {keyword} keeps to {limit:g} false alarms per hour: listen to "
                f"what is heard as it, with `earmark spot` and `earmark plot`"
            )


def _then_pause(recording: Recording) -> Iterator[Chunk]:
    yield from recording
    yield Silence(_PAUSE_S)
