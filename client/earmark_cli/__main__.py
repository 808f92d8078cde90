"""The `earmark` command."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXIT_FAILURE, _EXIT_INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code: 0, 1 for a failure, 2 wrong usage, 130 interrupted."""
    # gRPC's C core would write about every connection that ends; it looks at this as it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from earmark_client.errors import EarmarkError

    from earmark_cli.arguments import build_parser

    for stream in (sys.stdout, sys.stderr):
        # A file name, or a dash, that the terminal's encoding lacks must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(arguments)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except EarmarkError as error:
        print(f"earmark: {error}", file=sys.stderr)
        return _EXIT_FAILURE
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except OSError as error:
        # The output cannot be written; no word of it where its reader has had enough.
        if not isinstance(error, BrokenPipeError):
            print(f"earmark: the results cannot be written: {error.strerror}", file=sys.stderr)
        # Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_FAILURE
    return code


if __name__ == "__main__":
    sys.exit(main())
