"""`earmark listen`: spot keywords in live audio from the microphone."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client.microphone import Microphone, input_devices

from earmark_cli.actions.detection_actions import action_options, detection_actions
from earmark_cli.connection import connected
from earmark_cli.keyword_options import keyword_options
from earmark_cli.options import (
    add_command,
    channel_option,
    device_option,
    json_option,
    models_option,
    positive_seconds,
    server_options,
    stream_options,
)
from earmark_cli.output.console import notice, report_connection
from earmark_cli.output.keyword_label import keyword_label
from earmark_cli.output.labelled_recording import LabelledRecording
from earmark_cli.output.printer import make_printer
from earmark_cli.stream_runner import run_stream

if TYPE_CHECKING:
    import argparse

    from earmark_client.events import Started

    from earmark_cli.options import Commands

_EXIT_INTERRUPTED = 130


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "listen",
        "spot keywords in live audio from the microphone",
        run,
        server_options(),
        json_option(),
        models_option(),
        keyword_options(),
        stream_options(),
        device_option(),
        channel_option(),
        action_options(),
    )
    parser.add_argument("--list-devices", action="store_true", help="list all recording devices and exit")
    parser.add_argument(
        "--duration",
        type=positive_seconds,
        metavar="SECONDS",
        help="stop after this much audio (default: at Ctrl-C)",
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE.wav",
        help="write the audio to this file with the detections as cue points, and to FILE.txt as Audacity "
        "labels",
    )


def run(args: argparse.Namespace) -> int:
    """Stream the microphone; return 130 after Ctrl-C."""
    if args.list_devices:
        return _list_devices(args)
    # The microphone comes first: without one no server is needed, and it records while a server starts.
    with (
        Microphone(
            args.device,
            duration_s=args.duration,
            channel=args.channel,
            on_connection=report_connection,
        ) as microphone,
        nullcontext()
        if args.record is None
        else LabelledRecording(args.record, sample_rate_hz=microphone.sample_rate_hz) as recording,
        detection_actions(args, recording=recording) as actions,
        connected(args) as (_, client),
    ):

        def announce(started: Started) -> None:
            keywords = ", ".join(keyword_label(active, started) for active in started.keywords)
            notice(
                f"Recording from {microphone.name} ({microphone.sample_rate_hz} Hz); Ctrl-C stops. "
                f"Keywords: {keywords}"
            )

        # The first Ctrl-C waits for the detections in the recorded audio.
        interrupted = run_stream(
            client,
            microphone,
            args,
            make_printer(args),
            name=microphone.name,
            actions=actions,
            on_started=announce,
            stop=microphone.stop,
        )
        if microphone.lost_s:
            notice(
                f"earmark: the server was too slow for the microphone: {microphone.lost_s:.1f} s of audio "
                "were replaced by silence"
            )
    return _EXIT_INTERRUPTED if interrupted else 0


def _list_devices(args: argparse.Namespace) -> int:
    printer = make_printer(args)
    devices = input_devices()
    for device in devices:
        printer.device(device)
    if not devices:
        notice("earmark: there is no recording device")
    return 0 if devices else 1
