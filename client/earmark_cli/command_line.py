"""The command line of `earmark`: all commands and their options."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, NoReturn

from earmark_audio.argument_parser import ArgumentParser

from earmark_cli import classify, completion, demo, health, listen, models, spot, web, wyoming
from earmark_cli.check import command as check
from earmark_cli.plot import command as plot
from earmark_cli.record_keyword import command as record_keyword
from earmark_cli.review import command as review
from earmark_cli.tune import command as tune
from earmark_cli.usage_error import UsageError

if TYPE_CHECKING:
    import argparse

_DESCRIPTION = """\
Keyword spotting in live or recorded audio, over gRPC.

Without --server, commands start a server inside this process when they need one.
"""

_EPILOG = """\
examples:
  earmark demo                                   the bundled recording, in real time
  earmark spot meeting.flac --keyword stop=0.8   a recording, as fast as possible
  arecord -q -t raw -f S16_LE -r 16000 | earmark spot -
  earmark listen --server kws.example.org:50051  live audio from the microphone

exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted
results go to standard output, notices and errors to standard error
"""


class _Parser(ArgumentParser):
    """A parser that raises its errors, so that they are printed as all others are."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(self.usage_problem(message))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the parsed `run` is the function of the chosen command. Raises UsageError."""
    parser: argparse.ArgumentParser = _Parser(prog="earmark", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"earmark {version('earmark')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        spot,
        demo,
        listen,
        classify,
        plot,
        tune,
        check,
        review,
        record_keyword,
        web,
        wyoming,
        models,
        health,
    ):
        command.add_parser(commands)
    completion.add_parser(commands, parser)
    return parser
