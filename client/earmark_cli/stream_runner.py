"""Runs streams and prints their events, for `earmark spot`, `earmark demo` and `earmark listen`."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack, nullcontext
from functools import cache
from typing import TYPE_CHECKING

from earmark_audio.progress import Progress as WorkProgress
from earmark_client.errors import InvalidRequestError, RecordingError
from earmark_client.events import AudioWarning, Detection, Ended, Progress, Reconnecting, Resumed, Started
from earmark_client.microphone import Microphone
from earmark_client.recording import Recording

from earmark_cli.audio_sources import audio_format, concerns_one_recording, in_real_time
from earmark_cli.connection import connected
from earmark_cli.interrupts import Interrupts
from earmark_cli.keyword_options import keyword_settings
from earmark_cli.output.console import is_terminal, notice
from earmark_cli.output.files import file_size
from earmark_cli.output.printer import Printer, Summary, make_printer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from earmark_audio.progress import Phase
    from earmark_client.audio import Silence
    from earmark_client.sync_client import SyncClient

    from earmark_cli.actions.detection_actions import DetectionActions
    from earmark_cli.audio_sources import AudioSource, RawInput
    from earmark_cli.output.live_display import LiveDisplay

    Opener = Callable[[], AbstractContextManager[Recording | RawInput]]

# Blocks as short as a microphone's in real time; else long ones, which cost less.
_REAL_TIME_BLOCK_S = 0.1
_FAST_BLOCK_S = 1.0


def block_length_s(*, in_real_time: bool) -> float:
    """Return the length of the blocks in which a recording is sent."""
    return _REAL_TIME_BLOCK_S if in_real_time else _FAST_BLOCK_S


def stream_recordings(
    sources: Sequence[tuple[str, Opener]],
    args: argparse.Namespace,
    *,
    in_real_time: bool,
    actions: DetectionActions,
) -> int:
    """Stream recordings one after the other, each opened by name; return 1 if any of them failed."""
    printer = make_printer(args, with_headings=len(sources) > 1)
    # The live display of each recording shows the progress of all of them too.
    shown = len(sources) > 1 and not _has_live_display(args)
    with (
        WorkProgress(shown=shown) as progress,
        recordings_phase(progress, [name for name, _ in sources]) as phase,
        ExitStack() as stack,
    ):
        connect = cache(lambda: stack.enter_context(connected(args))[1])
        succeeded: list[bool] = []
        for name, open_source in sources:
            whole = RecordingProgress(phase, name, len(succeeded) + 1, len(sources))
            succeeded.append(
                stream_recording(
                    name,
                    open_source,
                    connect,
                    args,
                    printer,
                    in_real_time=in_real_time,
                    actions=actions,
                    whole=whole,
                )
            )
            whole.finish()
    return 0 if all(succeeded) else 1


def recordings_phase(progress: WorkProgress, sources: Iterable[str]) -> Phase:
    """Return the phase of streaming recordings: files by name, with their sizes as the work."""
    return progress.phase("recordings", total=sum(map(file_size, sources)) or None)


class RecordingProgress:
    """One recording's part in the progress of all of them."""

    def __init__(self, phase: Phase, name: str, number: int, count: int) -> None:
        self._phase, self._size, self._before = phase, file_size(name), phase.n
        self._count = count
        phase.note = f"recording {number:,} of {count:,}"

    def update(self, share: float) -> None:
        """Set how much of the recording is done, 0 to 1."""
        self._phase.set(self._before + min(1.0, share) * self._size)

    def finish(self) -> None:
        """Note that the recording is done."""
        self.update(1.0)

    def state(self) -> str:
        """Return the progress of all recordings; nothing if there is only one."""
        return self._phase.state() if self._count > 1 else ""


def stream_recording(
    name: str,
    open_source: Opener,
    connect: Callable[[], SyncClient],
    args: argparse.Namespace,
    printer: Printer,
    *,
    in_real_time: bool,
    actions: DetectionActions,
    whole: RecordingProgress | None = None,
) -> bool:
    """Stream a recording; return whether that succeeded. Errors that concern other recordings too are raised.

    `connect` returns the client. It is called once there is a valid recording. `whole`: its part in the
    progress of several recordings.
    """
    try:
        with open_source() as source:
            client = connect()
            warned: set[str] = set()
            try:
                run_stream(
                    client,
                    source,
                    args,
                    printer,
                    name=name,
                    is_live=in_real_time,
                    actions=actions,
                    warned=warned,
                    whole=whole,
                )
            finally:
                # The notices are complete after the last block.
                for one in source.notices if isinstance(source, Recording) else ():
                    if one.reason not in warned:
                        printer.warning(name, one)
    except (RecordingError, InvalidRequestError) as error:
        if not concerns_one_recording(error):
            raise
        printer.failure(name, error)
        return False
    return True


def run_stream(  # noqa: PLR0912 - one branch for each kind of event
    client: SyncClient,
    source: AudioSource,
    args: argparse.Namespace,
    printer: Printer,
    *,
    name: str,
    actions: DetectionActions,
    is_live: bool = True,
    on_started: Callable[[Started], None] = lambda _: None,
    stop: Callable[[], None] | None = None,
    warned: set[str] | None = None,
    whole: RecordingProgress | None = None,
) -> bool:
    """Stream one source; print its events, and a summary also after an interrupt.

    `is_live`: send the audio in real time, as a microphone does by itself. `stop` ends the source at the
    first Ctrl-C; the return value is whether there was one. `warned`: the reasons of the warnings that were
    printed are added to it.
    """
    begin_s = time.monotonic()
    audio_s, detections, broken = 0.0, 0, False
    audio: Iterable[bytes | Silence] = source
    if is_live and not isinstance(source, Microphone):
        audio = in_real_time(source)
    keywords = keyword_settings(client, args, args.models)
    interrupts = Interrupts(client.close, stop=stop)
    try:
        with interrupts, _live_display(source, args, name, is_live=is_live, whole=whole) as display:
            if display:
                audio = display.measure(audio)
            audio = actions.begin(name, audio_format(source), audio)
            for event in client.stream(
                audio,
                sample_rate_hz=source.sample_rate_hz,
                encoding=source.encoding,
                channels=source.channels,
                channel=audio_format(source).channel,
                models=args.models,
                keywords=keywords,
                score_interval_s=display.score_interval_s if display else None,
                resume_within_s=args.resume_within,
                gate=args.gate,
                keep_audio_s=actions.keep_audio_s,
            ):
                with display.paused() if display else nullcontext():
                    if display:
                        display.update(event)
                    match event:
                        case Started():
                            on_started(event)
                            printer.started(name, event)
                        case Detection():
                            detections += 1
                            printer.detection(name, event)
                            actions.run(name, event)
                        case AudioWarning():
                            printer.warning(name, event)
                            if warned is not None:
                                warned.add(event.reason)
                        case Progress():
                            audio_s = event.received_s
                            actions.discard_before(event.decided_s)
                            if whole and isinstance(source, Recording) and source.duration_s:
                                whole.update(audio_s / source.duration_s)
                        case Reconnecting() | Resumed():
                            _report_outage(event, broken=broken, within_s=args.resume_within)
                            broken = isinstance(event, Reconnecting)
                        case Ended():
                            audio_s = event.audio_s
                    actions.print_messages()
    except KeyboardInterrupt:
        printer.summary(name, Summary(audio_s, detections, time.monotonic() - begin_s, interrupted=True))
        raise
    finally:
        actions.end()
    printer.summary(
        name, Summary(audio_s, detections, time.monotonic() - begin_s, interrupted=interrupts.happened)
    )
    return interrupts.happened


def _has_live_display(args: argparse.Namespace) -> bool:
    return not args.json and is_terminal(sys.stdout)


def _live_display(
    source: AudioSource,
    args: argparse.Namespace,
    name: str,
    *,
    is_live: bool,
    whole: RecordingProgress | None,
) -> AbstractContextManager[LiveDisplay | None]:
    """Return a live display if standard output is a terminal, else a context of None."""
    if not _has_live_display(args):
        return nullcontext()
    # Imported here, because importing rich takes long.
    from earmark_cli.output.live_display import LiveDisplay

    return LiveDisplay(
        name,
        audio_format(source),
        total_s=source.duration_s if isinstance(source, Recording) else None,
        is_live=is_live or not isinstance(source, Recording) or source.is_live,
        whole=whole.state if whole else None,
    )


def _report_outage(event: Reconnecting | Resumed, *, broken: bool, within_s: float) -> None:
    """Report once that the stream broke, and that it has resumed."""
    if isinstance(event, Resumed):
        notice(f"earmark: the stream resumed after {event.outage_s:.1f} s; nothing was lost")
    elif not broken:
        notice(f"earmark: {event.cause}; trying to resume for {within_s:g} s")
