"""What `earmark` takes on its command line."""

from __future__ import annotations

import argparse
import math
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client.addresses import DEFAULT_ADDRESS, grpc_target
from earmark_client.audio import Encoding, KeywordSetting
from earmark_client.errors import InvalidRequestError
from earmark_client.stream_options import DEFAULT_RESUME_WITHIN_S

from earmark_cli import queries, streaming, web
from earmark_cli.completion import HOW_TO, SHELLS, completion
from earmark_cli.connection import add_security
from earmark_cli.plot import command as plot_command
from earmark_cli.tune import command as tune_command

if TYPE_CHECKING:
    from collections.abc import Callable

_DESCRIPTION = """\
Marks keywords in audio, live or recorded, over gRPC.

Without --server, a server is started inside this process where one is needed.
"""

_EPILOG = """\
examples:
  earmark demo                                   keywords in the bundled recording, as it is played
  earmark spot meeting.flac --keyword stop=0.8   keywords in a recording, as fast as it goes
  arecord -q -t raw -f S16_LE -r 16000 | earmark spot -
  earmark listen --server kws.example.org:50051  keywords from the microphone

exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted
results go to standard output, notices and errors to standard error
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; the parsed `run` is the command's function."""
    parser = argparse.ArgumentParser(
        prog="earmark",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"earmark {version('earmark')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    connection, keywords, model = _connection(), _keywords(), _model()
    audio = _listening(keywords)

    spot = _add(commands, "spot", "mark keywords in recordings", streaming.spot, connection, model, audio)
    spot.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="WAV, FLAC, Ogg or MP3; - takes raw samples from standard input",
    )
    spot.add_argument(
        "--pace", action="store_true", help="send at the recording's own pace (default: as fast as it goes)"
    )
    raw = spot.add_argument_group("raw samples from standard input (FILE is -)")
    raw.add_argument(
        "--rate",
        type=_rate,
        default=16000,
        metavar="HZ",
        help="samples per second, 8000 to 192000 (default: 16000)",
    )
    raw.add_argument(
        "--encoding",
        choices=[encoding.value for encoding in Encoding],
        default=Encoding.LINEAR16.value,
        metavar="ENCODING",
        help="linear16, float32 (both little-endian), mulaw or alaw (default: linear16)",
    )
    raw.add_argument(
        "--channels", type=_channels, default=1, metavar="N", help="interleaved channels, 1 to 8 (default: 1)"
    )

    demo = _add(
        commands, "demo", "mark keywords in the bundled recording", streaming.demo, connection, model, audio
    )
    demo.add_argument("--fast", action="store_true", help="as fast as it goes (default: at its own pace)")

    listen = _add(
        commands, "listen", "mark keywords from the microphone", streaming.listen, connection, model, audio
    )
    listen.add_argument(
        "--list-devices", action="store_true", help="list the devices that can record, and stop"
    )
    listen.add_argument(
        "--device",
        type=_device,
        metavar="DEVICE",
        help="a device's number or part of its name (default: the system's)",
    )
    listen.add_argument(
        "--duration", type=_positive, metavar="SECONDS", help="stop after so much audio (default: at Ctrl-C)"
    )
    listen.add_argument(
        "--record",
        type=Path,
        metavar="FILE.wav",
        help="keep what is heard, with the detections as cue points, and in FILE.txt as labels for Audacity",
    )

    classify = _add(
        commands, "classify", "name the one word in each short clip", queries.classify, connection, model
    )
    classify.add_argument("files", nargs="+", metavar="FILE", help="WAV, FLAC or Ogg")
    classify.add_argument(
        "--top", type=_count, metavar="N", help="print the N likeliest classes (default: 3, with --json all)"
    )

    timeline = _add(
        commands,
        "plot",
        "draw a recording, its scores and what was heard in it",
        plot_command.plot,
        connection,
        model,
        keywords,
    )
    timeline.add_argument("file", metavar="FILE", help="WAV, FLAC, Ogg or MP3")
    timeline.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("timeline.html"),
        metavar="FILE",
        help="a page that plays the sound (.html), or a picture (.png, needs matplotlib); "
        "default: timeline.html",
    )
    timeline.add_argument(
        "--from", dest="start", type=_offset, default=0.0, metavar="SECONDS", help="draw from here on"
    )
    timeline.add_argument(
        "--to",
        dest="end",
        type=_positive,
        metavar="SECONDS",
        help=f"draw up to here; at most {plot_command.LONGEST_S / 60:g} minutes can be drawn",
    )

    tuning = _add(
        commands, "tune", "find thresholds with recordings of your own", tune_command.tune, connection, model
    )
    tuning.formatter_class, tuning.epilog = argparse.RawDescriptionHelpFormatter, tune_command.LAYOUT
    tuning.add_argument("folder", type=Path, metavar="DIR", help="the folder with the recordings")
    tuning.add_argument(
        "--fa-per-hour",
        type=_rate_per_hour,
        default=0.5,
        metavar="N",
        help="how many false alarms an hour a keyword may give (default: 0.5)",
    )
    tuning.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="draw misses over false alarms too: a picture (.png, .svg) or a page (.html); needs matplotlib",
    )

    page = _add(
        commands,
        "web",
        "serve a page that listens to a browser's microphone",
        web.web,
        _connection(with_json=False),
        model,
    )
    web.add_options(page, whole=_whole)

    _add(commands, "models", "list what the server has loaded", queries.models, connection)

    health = _add(
        commands, "health", "say whether a server is serving", queries.health, _connection(DEFAULT_ADDRESS)
    )
    health.add_argument("--watch", action="store_true", help="go on, and say every change")

    shells = _add(commands, "completion", "print a script that completes the command in a shell", completion)
    shells.add_argument("shell", choices=SHELLS, help="the shell")
    shells.formatter_class, shells.epilog = argparse.RawDescriptionHelpFormatter, HOW_TO
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=parents
    )
    parser.set_defaults(run=run)
    return parser


def _connection(
    without: str = "one inside this process", *, with_json: bool = True
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--server",
        type=_address,
        metavar="HOST:PORT",
        # argparse checks a default that is a string as if it had been typed.
        default=os.environ.get("EARMARK_SERVER") or None,
        help=f"the server to use (default: $EARMARK_SERVER, else {without})",
    )
    if with_json:
        parser.add_argument(
            "--json", action="store_true", help="print JSON, one object a line (docs/output.schema.json)"
        )
    add_security(parser)
    return parser


def _model() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--model", default="", metavar="NAME", help="the model to use (default: the server's)"
    )
    return parser


def _keywords() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--keyword",
        type=_keyword,
        action="append",
        default=[],
        metavar="WORD[=THRESHOLD]",
        help="listen for this keyword, counted as heard from this score on, between 0 and 1; may be "
        "repeated (default: all of the model's, as calibrated)",
    )
    parser.add_argument(
        "--threshold",
        type=_threshold,
        metavar="T",
        help="the threshold of every keyword for which --keyword gives none, between 0 and 1 "
        "(default: as calibrated)",
    )
    return parser


def _listening(keywords: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, parents=[keywords])
    parser.add_argument(
        "--resume-within",
        type=_seconds,
        default=DEFAULT_RESUME_WITHIN_S,
        metavar="SECONDS",
        help="when the connection or the server is lost, try for so long to go on where it broke "
        f"(default: {DEFAULT_RESUME_WITHIN_S:g}; 0: do not try)",
    )
    return parser


def _address(text: str) -> str:
    try:
        return grpc_target(text)
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _keyword(text: str) -> KeywordSetting:
    keyword, equals, threshold = text.rpartition("=")
    if not equals:
        return KeywordSetting(text)
    value = _number(threshold)
    if not keyword or value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give a keyword, or a keyword and its threshold between 0 and 1, such as stop=0.8"
        )
    return KeywordSetting(keyword, threshold=value)


def _threshold(text: str) -> float:
    value = _number(text)
    if value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def _rate(text: str) -> int:
    return _whole(text, 8000, 192_000)


def _channels(text: str) -> int:
    return _whole(text, 1, 8)


def _count(text: str) -> int:
    return _whole(text, 1, 1_000_000)


def _whole(text: str, lowest: int, highest: int) -> int:
    value = _number(text)
    if value is None or value != int(value) or not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
    return int(value)


def _positive(text: str) -> float:
    value = _number(text)
    if value is None or value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _offset(text: str) -> float:
    value = _number(text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 on")
    return value


def _rate_per_hour(text: str) -> float:
    value = _number(text)
    if value is None or not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and up to 3600")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if value is None or not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def _device(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
