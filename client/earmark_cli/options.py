"""Options that several commands share, and parsers for the values of options."""

from __future__ import annotations

import argparse
import math
import os
from typing import TYPE_CHECKING

from earmark_audio import MAX_CHANNELS
from earmark_client.addresses import grpc_target
from earmark_client.errors import InvalidRequestError
from earmark_client.stream_options import DEFAULT_RESUME_WITHIN_S

if TYPE_CHECKING:
    from collections.abc import Callable

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


# As samples and as nanoseconds, this still fits 64 bits.
_MAX_SECONDS = 1_000_000_000


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    run: Callable[[argparse.Namespace], int],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add a command with the options of `parents`; return its parser. `run` returns the exit code."""
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", parents=parents
    )
    parser.set_defaults(run=run)
    return parser


def server_options(default: str = "a server inside this process") -> argparse.ArgumentParser:
    """Return a parent parser with --server and the credentials for that server."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--server",
        type=server_address,
        metavar="HOST:PORT",
        # argparse parses a default that is a string as if it were typed.
        default=os.environ.get("EARMARK_SERVER") or None,
        help=f"the server to connect to (default: $EARMARK_SERVER, else {default})",
    )
    credentials = parser.add_argument_group("credentials for --server")
    credentials.add_argument(
        "--tls",
        action="store_true",
        default=None,
        help="encrypt the connection (default: $EARMARK_TLS, else plain text)",
    )
    credentials.add_argument(
        "--ca",
        metavar="FILE",
        help="PEM file of the certificate authorities to trust instead of the public ones; implies --tls "
        "(default: $EARMARK_CA)",
    )
    credentials.add_argument(
        "--certificate",
        metavar="FILE",
        help="PEM file of the client certificate; implies --tls (default: $EARMARK_CERTIFICATE)",
    )
    credentials.add_argument(
        "--key", metavar="FILE", help="PEM file of the key of --certificate (default: $EARMARK_KEY)"
    )
    credentials.add_argument(
        "--token-file",
        metavar="FILE",
        help="file that contains the bearer token (default: the token itself in $EARMARK_TOKEN); without "
        "TLS it is sent only to this machine",
    )
    return parser


def json_option() -> argparse.ArgumentParser:
    """Return a parent parser with --json."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--json", action="store_true", help="print JSON, one object per line (docs/output.schema.json)"
    )
    return parser


def model_option() -> argparse.ArgumentParser:
    """Return a parent parser with --model."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("model and keywords")
    group.add_argument(
        "--model",
        action=_Once,
        default="",
        metavar="NAME",
        help="the model to use (default: the server's default model)",
    )
    return parser


def models_option() -> argparse.ArgumentParser:
    """Return a parent parser with --model, which may be repeated."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("model and keywords")
    group.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="NAME",
        help="a model to use; may be repeated, for the keywords of several models (default: the server's "
        "default model)",
    )
    return parser


def channel_option(*, each: bool = False) -> argparse.ArgumentParser:
    """Return a parent parser with --channel; `each`: whether it may be `each`."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("audio")
    one = whole_number(1, MAX_CHANNELS)
    group.add_argument(
        "--channel",
        type=(lambda text: text if text == "each" else one(text)) if each else one,
        metavar="N",
        help=f"the channel to process, 1 for the first{'; `each`: each separately' if each else ''} "
        "(default: the average of all channels)",
    )
    return parser


def device_option() -> argparse.ArgumentParser:
    """Return a parent parser with --device."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("audio")
    group.add_argument(
        "--device",
        type=lambda text: int(text) if text.isdecimal() else text,
        metavar="DEVICE",
        help="number of the recording device, or a part of its name (default: the system's default device)",
    )
    return parser


def stream_options() -> argparse.ArgumentParser:
    """Return a parent parser with --resume-within and --gate."""
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("stream")
    group.add_argument(
        "--resume-within",
        type=_resume_seconds,
        default=DEFAULT_RESUME_WITHIN_S,
        metavar="SECONDS",
        help="how long to try to resume the stream after the connection or the server is lost "
        f"(default: {DEFAULT_RESUME_WITHIN_S:g}; 0: never)",
    )
    group.add_argument(
        "--gate",
        action="store_true",
        help="send silence in place of audio that is nearly silent: it saves network and the server's CPU",
    )
    return parser


class _Once(argparse.Action):
    """Stores the value of an option that other commands allow several times, and this one does not."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) != self.default:
            raise argparse.ArgumentError(self, "this command has one model: give the option once")
        setattr(namespace, self.dest, values)


def server_address(text: str) -> str:
    """Parse HOST:PORT."""
    try:
        return grpc_target(text)
    except InvalidRequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return a parser of whole numbers between two bounds, both included."""

    def parse(text: str) -> int:
        value = number(text)
        if value is None or value != int(value) or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return int(value)

    return parse


def probability(text: str) -> float:
    """Parse a number between 0 and 1, both excluded."""
    value = number(text)
    if value is None or not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return value


def positive_seconds(text: str) -> float:
    """Parse a length of time above 0."""
    value = number(text)
    if value is None or not 0 < value <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0, up to {_MAX_SECONDS}")
    return value


def offset_seconds(text: str) -> float:
    """Parse an offset of at least 0."""
    value = number(text)
    if value is None or not 0 <= value <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {_MAX_SECONDS}")
    return value


def number(text: str) -> float | None:
    """Parse a finite number; return None for anything else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _resume_seconds(text: str) -> float:
    value = number(text)
    if value is None or not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value
