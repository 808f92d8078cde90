"""The `earmark` command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from earmark_audio.startup import interrupts_end_process, prepare_standard_streams
from earmark_audio.terminal import report_unwritable

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXIT_FAILURE, _EXIT_WRONG_USAGE, _EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 1 for a failure, 2 for wrong usage, 130 for an interrupt."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED


def _run(words: Sequence[str]) -> int:
    if not prepare_standard_streams("earmark"):
        return _EXIT_FAILURE
    if words[:1] == ["health"]:
        with interrupts_end_process():
            from earmark_cli.health_probe import probe

        answer = probe(words[1:])
        if answer is not None:
            return answer
    # gRPC's C core would log every connection that ends. It reads this variable during its import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with interrupts_end_process():
        from earmark_client.errors import EarmarkError

        from earmark_cli.command_line import build_parser
        from earmark_cli.output.printer import JsonPrinter, TextPrinter
        from earmark_cli.usage_error import UsageError

    for stream in (sys.stdout, sys.stderr):
        # Do not fail on characters, of a file name for example, that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            args = build_parser().parse_args(words)
            code: int = args.run(args)
        except EarmarkError as error:
            # Options that cannot be parsed still say whether the error is for a program.
            printer = JsonPrinter() if "--json" in words else TextPrinter()
            printer.failure("", error)
            code = _EXIT_WRONG_USAGE if isinstance(error, UsageError) else _EXIT_FAILURE
        sys.stdout.flush()
    except OSError as error:
        report_unwritable("earmark", error)
        return _EXIT_FAILURE
    return code


if __name__ == "__main__":
    sys.exit(main())
