"""`earmark spot`: spot keywords in recordings, or in standard input."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from earmark_audio import FORMATS_HELP
from earmark_client.audio import AudioFormat, Encoding
from earmark_client.errors import RecordingError
from earmark_client.recording import Recording

from earmark_cli.actions.detection_actions import action_options, detection_actions
from earmark_cli.audio_sources import is_fifo, open_source
from earmark_cli.keyword_options import keyword_options
from earmark_cli.options import (
    add_command,
    channel_option,
    json_option,
    models_option,
    server_options,
    stream_options,
    whole_number,
)
from earmark_cli.stream_runner import block_length_s, stream_recordings
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager

    from earmark_cli.audio_sources import RawInput
    from earmark_cli.options import Commands
    from earmark_cli.stream_runner import Opener


def add_parser(commands: Commands) -> None:
    """Add the command and its options."""
    parser = add_command(
        commands,
        "spot",
        "spot keywords in recordings",
        run,
        server_options(),
        json_option(),
        models_option(),
        keyword_options(),
        channel_option(each=True),
        stream_options(),
        action_options(),
    )
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=f"a recording: {FORMATS_HELP}. - reads standard input: a recording, or raw samples",
    )
    parser.add_argument(
        "--pace", action="store_true", help="send the audio in real time (default: as fast as possible)"
    )
    parser.add_argument(
        "--jobs",
        type=whole_number(1, 1024),
        default=1,
        metavar="N",
        help="number of processes, each of which streams one recording at a time; for many recordings, use "
        "the number of cores (default: 1)",
    )
    raw = parser.add_argument_group("format of raw samples from standard input (FILE is -)")
    raw.add_argument(
        "--rate",
        type=whole_number(8000, 192_000),
        metavar="HZ",
        help="sample rate, 8000 to 192000 (default: 16000)",
    )
    raw.add_argument(
        "--encoding",
        choices=[encoding.value for encoding in Encoding],
        metavar="ENCODING",
        help="linear16, float32 (both little-endian), mulaw or alaw (default: linear16)",
    )
    raw.add_argument(
        "--channels",
        type=whole_number(1, 8),
        metavar="N",
        help="number of interleaved channels, 1 to 8 (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Stream all recordings; return 1 if any of them failed."""
    sources: list[tuple[str, Opener]] = []
    for name in args.files:
        if args.channel == "each":
            sources += [
                (f"{name} (channel {channel})", partial(_open, name, args, channel))
                for channel in range(1, _channel_count(name) + 1)
            ]
        else:
            sources.append((name, partial(_open, name, args, args.channel)))
    if args.jobs > 1:
        if "-" in args.files:
            raise UsageError("--jobs requires files: standard input (-) is one recording")
        from earmark_cli.jobs import stream_with_jobs  # imports multiprocessing

        return stream_with_jobs(sources, args, args.jobs)
    with detection_actions(args) as actions:
        return stream_recordings(sources, args, in_real_time=args.pace, actions=actions)


def _channel_count(name: str) -> int:
    """Return the number of channels of a recording, 1 if it cannot be opened: opening it again says why."""
    if name == "-" or is_fifo(name):
        shown = "standard input (-)" if name == "-" else f"{name} is a pipe, which"
        raise UsageError(f"--channel each requires files: {shown} is read only once")
    try:
        with Recording(name) as recording:
            return recording.file_channels
    except RecordingError:
        return 1


def _open(
    name: str, args: argparse.Namespace, channel: int | None
) -> AbstractContextManager[Recording | RawInput]:
    states_format = (args.rate, args.encoding, args.channels) != (None, None, None)
    raw_format = AudioFormat(
        args.rate or 16_000, Encoding(args.encoding or Encoding.LINEAR16), args.channels or 1
    )
    return open_source(
        name,
        raw_format if states_format else None,
        block_s=block_length_s(in_real_time=args.pace),
        channel=channel,
    )
