"""The options for what happens at a detection, and the actions that they mean."""

from __future__ import annotations

import argparse
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING

from earmark_cli.actions.command_runner import CommandRunner
from earmark_cli.options import positive_seconds, whole_number
from earmark_cli.output.console import notice, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_client.events import Detection

# How long to wait for the last commands before a notice says so.
_QUIET_WAIT_S = 1.0


def action_options() -> argparse.ArgumentParser:
    """Return a parent parser with the options of actions."""
    parser = argparse.ArgumentParser(add_help=False)
    actions = parser.add_argument_group("actions at a detection")
    actions.add_argument(
        "--exec",
        type=_command,
        metavar="COMMAND",
        help="run this command for each detection, without a shell: the detection is in the environment, as "
        "EARMARK_KEYWORD, EARMARK_CONFIDENCE, EARMARK_START, EARMARK_END (seconds), EARMARK_ID and "
        "EARMARK_SOURCE",
    )
    actions.add_argument(
        "--exec-at-once",
        type=whole_number(1, 1000),
        default=4,
        metavar="N",
        help="how many of these commands may run at once; others wait (default: 4; with "
        "--jobs each process has its share, at least 1)",
    )
    actions.add_argument(
        "--exec-timeout",
        type=positive_seconds,
        default=60.0,
        metavar="SECONDS",
        help="kill a command that runs for longer (default: 60)",
    )
    return parser


class DetectionActions:
    """The actions of one run of a command, by default none."""

    def __init__(self, *, runner: CommandRunner | None = None) -> None:
        self._runner = runner

    def run(self, source: str, detection: Detection) -> None:
        """Run the actions for a detection in the audio of a source."""
        if self._runner is not None:
            self._runner.run(_variables(source, detection))

    def print_messages(self) -> None:
        """Print what the actions have to report. Called where nothing else is printed at the same time."""
        for message in self._runner.messages() if self._runner is not None else ():
            notice(f"earmark: --exec: {message}")

    def close(self, *, interrupted: bool) -> None:
        """Wait for all commands to end; kill them after an interrupt."""
        if self._runner is None:
            return
        try:
            if not interrupted:
                self.print_messages()
                if not self._runner.wait(_QUIET_WAIT_S):
                    count = self._runner.unfinished
                    notice(f"earmark: --exec: waiting for commands to end: {count}; Ctrl-C kills them")
                self._runner.wait()
        finally:
            self._runner.kill()
            self._runner.wait()
            self.print_messages()


@contextmanager
def detection_actions(args: argparse.Namespace) -> Iterator[DetectionActions]:
    """Yield the actions that the options ask for."""
    runner = None
    if args.exec is not None:
        runner = CommandRunner(args.exec, concurrency=args.exec_at_once, timeout_s=args.exec_timeout)
    actions = DetectionActions(runner=runner)
    try:
        yield actions
    except BaseException as error:
        actions.close(interrupted=isinstance(error, KeyboardInterrupt))
        raise
    actions.close(interrupted=False)


def _variables(source: str, detection: Detection) -> dict[str, str]:
    """Return the environment variables that describe a detection."""
    return {
        # A server's keyword may contain control characters, and a variable no NUL.
        "EARMARK_KEYWORD": printable(detection.keyword),
        "EARMARK_CONFIDENCE": f"{detection.confidence:.4f}",
        "EARMARK_START": f"{detection.start_s:.4f}",
        "EARMARK_END": f"{detection.end_s:.4f}",
        "EARMARK_ID": printable(detection.id),
        "EARMARK_SOURCE": printable(source),
    }


def _command(text: str) -> list[str]:
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {str(error).lower()}") from None
    if not command:
        raise argparse.ArgumentTypeError("the command is empty")
    return command
