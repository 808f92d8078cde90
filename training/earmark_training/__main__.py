"""The command `earmark-train`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from earmark_audio.startup import interrupts_end_process, prepare_standard_streams
from earmark_audio.terminal import report_unwritable

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for a failure, 2 for wrong usage, 130 for an interrupt."""
    if not prepare_standard_streams("earmark-train"):
        return 1
    with interrupts_end_process():
        from earmark_training.command_line import build_parser, run

        try:
            args = build_parser().parse_args(arguments)
        except OSError as error:
            report_unwritable("earmark-train", error)  # the help, say
            return 1
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
