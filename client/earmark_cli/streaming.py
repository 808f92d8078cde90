"""`earmark spot`, `earmark demo` and `earmark listen`: audio in, detections out as they are decided."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client.audio import AudioFormat, Encoding, KeywordSetting
from earmark_client.errors import InvalidRequestError, RecordingError
from earmark_client.events import Detection, Ended, Progress, Reconnecting, Resumed, Started
from earmark_client.microphone import Microphone, input_devices
from earmark_client.recording import Recording

from earmark_cli.audio_sources import RawInput, in_real_time
from earmark_cli.connection import connected
from earmark_cli.output.labelled_recording import Keeper
from earmark_cli.output.printer import JsonPrinter, Printer, Summary, TextPrinter, notice, on_terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from earmark_client.audio import Silence
    from earmark_client.sync_client import SyncClient

    from earmark_cli.output.live_display import Screen

DEMO_RECORDING = Path(__file__).parents[0] / "samples" / "demo.flac"

# Errors that are one recording's own: the next one may do better.
OF_THE_RECORDING = {"BAD_AUDIO", "UNSUPPORTED_SAMPLE_RATE"}

# As a microphone would; and long blocks where nobody waits, which cost less to send.
_PACED_BLOCK_S = 0.1
_FAST_BLOCK_S = 1.0

_EXIT_INTERRUPTED = 130


def spot(args: argparse.Namespace) -> int:
    """Stream recordings, one after the other; 1 if any of them failed."""
    return _spot({name: name for name in args.files}, args)


def demo(args: argparse.Namespace) -> int:
    """Stream the bundled recording."""
    answer = json.loads(DEMO_RECORDING.with_suffix(".json").read_text())
    said = ", ".join(line["keyword"] for line in answer["said"] if line["keyword"])
    length = f"{answer['duration_s']:.0f} s of synthetic voices"
    notice(f"{DEMO_RECORDING.name}, {length}; keywords said in it: {said}")
    args.pace = not args.fast
    return _spot({DEMO_RECORDING.name: str(DEMO_RECORDING)}, args)


def _spot(recordings: dict[str, str], args: argparse.Namespace) -> int:
    """Stream recordings, given as names to show and paths."""
    printer = _printer(args, many=len(recordings) > 1)
    failed = False
    with ExitStack() as stack:
        client: SyncClient | None = None
        for name, path in recordings.items():
            try:
                with _open(path, args) as source:
                    # Not before: without one good recording there is no need of a server.
                    if client is None:
                        _, client = stack.enter_context(connected(args))
                    _run(client, source, args, printer, name=name)
            except (RecordingError, InvalidRequestError) as error:
                if isinstance(error, InvalidRequestError) and error.reason not in OF_THE_RECORDING:
                    raise
                printer.failure(name, error)
                failed = True
    return 1 if failed else 0


def listen(args: argparse.Namespace) -> int:
    """Stream a microphone until interrupted; then 130."""
    printer = _printer(args)
    if args.list_devices:
        devices = input_devices()
        for device in devices:
            printer.device(device)
        if not devices:
            notice("earmark: there is no device that can record")
        return 0 if devices else 1
    interrupted = False
    # The microphone first: without one there is no need of a server, and nothing said meanwhile is missed.
    with (
        Microphone(args.device, duration_s=args.duration) as microphone,
        _keeper(args.record, microphone.sample_rate_hz) as keeper,
        connected(args) as (_, client),
    ):

        def interrupt(_signal: int, _frame: object) -> None:
            # The server still decides what it has heard; a second interrupt does not wait for it.
            nonlocal interrupted
            interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)
            microphone.stop()

        def say_so(started: Started) -> None:
            notice(
                f"Listening to {microphone.name} ({microphone.sample_rate_hz} Hz); Ctrl-C ends. "
                f"Keywords: {', '.join(active.keyword for active in started.keywords)}"
            )

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            _run(
                client,
                microphone,
                args,
                printer,
                name=microphone.name,
                keeper=keeper,
                on_started=say_so,
                was_interrupted=lambda: interrupted,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        if microphone.lost_s:
            notice(f"earmark: {microphone.lost_s:.1f} s of audio were lost: the server was too slow for it")
    return _EXIT_INTERRUPTED if interrupted else 0


def _open(name: str, args: argparse.Namespace) -> Recording | RawInput:
    block_s = _PACED_BLOCK_S if args.pace else _FAST_BLOCK_S
    if name != "-":
        return Recording(name, block_s=block_s)
    encoding = Encoding(args.encoding)
    return RawInput(0, AudioFormat(args.rate, encoding, args.channels), block_s=block_s)


def _printer(args: argparse.Namespace, *, many: bool = False) -> Printer:
    if args.json:
        return JsonPrinter()
    # A screen drops what its terminal cannot show, or NO_COLOR does not want.
    return TextPrinter(many=many, emphasis=("\x1b[1;32m", "\x1b[0m") if on_terminal(sys.stdout) else ("", ""))


def _keeper(path: Path | None, sample_rate_hz: int) -> AbstractContextManager[Keeper | None]:
    return nullcontext() if path is None else Keeper(path, sample_rate_hz=sample_rate_hz)


def _screen(
    source: Recording | RawInput | Microphone, args: argparse.Namespace, name: str
) -> AbstractContextManager[Screen | None]:
    """Show the stream where somebody looks; for anything else, what is printed is all there is."""
    if args.json or not on_terminal(sys.stdout):
        return nullcontext()
    # Nobody else is to wait for its import.
    from earmark_cli.output.live_display import Screen

    recording = source if isinstance(source, Recording) else None
    return Screen(
        name,
        sample_rate_hz=source.sample_rate_hz,
        encoding=source.encoding,
        channels=source.channels,
        total_s=recording.duration_s if recording else None,
        live=not recording or args.pace,
    )


def keyword_settings(client: SyncClient, args: argparse.Namespace) -> list[KeywordSetting]:
    """Give the keywords to listen for; --threshold counts where a --keyword says none."""
    if args.threshold is None:
        return list(args.keyword)
    chosen = args.keyword or [
        KeywordSetting(active.keyword) for active in client.get_model(args.model).keywords
    ]
    return [one if one.threshold is not None else replace(one, threshold=args.threshold) for one in chosen]


def _run(
    client: SyncClient,
    source: Recording | RawInput | Microphone,
    args: argparse.Namespace,
    printer: Printer,
    *,
    name: str,
    keeper: Keeper | None = None,
    on_started: Callable[[Started], None] = lambda _: None,
    was_interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Stream one source and print what comes, with the summary also when interrupted."""
    begin_s = time.monotonic()
    audio_s, detections, broken = 0.0, 0, False
    audio: Iterable[bytes | Silence] = source
    if not isinstance(source, Microphone) and args.pace:
        audio = in_real_time(source)
    keywords = keyword_settings(client, args)
    try:
        with _screen(source, args, name) as screen:
            for watcher in (keeper, screen):
                audio = audio if watcher is None else watcher.watch(audio)
            for event in client.stream(
                audio,
                sample_rate_hz=source.sample_rate_hz,
                encoding=source.encoding,
                channels=source.channels,
                model=args.model,
                keywords=keywords,
                score_interval_s=screen.score_interval_s if screen else None,
                resume_within_s=args.resume_within,
            ):
                with screen.undisturbed() if screen else nullcontext():
                    if screen:
                        screen.take(event)
                    match event:
                        case Started():
                            on_started(event)
                            printer.started(name, event)
                        case Detection():
                            detections += 1
                            if keeper:
                                keeper.take(event)
                            printer.detection(name, event)
                        case Progress():
                            audio_s = event.received_s
                        case Reconnecting() | Resumed():
                            _tell(event, broken=broken, within_s=args.resume_within)
                            broken = isinstance(event, Reconnecting)
                        case Ended():
                            audio_s = event.audio_s
    except KeyboardInterrupt:
        printer.summary(name, Summary(audio_s, detections, time.monotonic() - begin_s, interrupted=True))
        raise
    printer.summary(
        name, Summary(audio_s, detections, time.monotonic() - begin_s, interrupted=was_interrupted())
    )


def _tell(event: Reconnecting | Resumed, *, broken: bool, within_s: float) -> None:
    """Say that the stream broke, once, and that it goes on."""
    if isinstance(event, Resumed):
        notice(f"earmark: going on where it broke, after {event.outage_s:.1f} s; nothing is lost")
    elif not broken:
        notice(f"earmark: {event.cause}; trying to go on for {within_s:g} s")
