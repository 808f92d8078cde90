"""The command `earmark-server`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from earmark_audio.startup import interrupts_end_process

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal arrives; return the exit code, as `earmark_server.process.run` documents it."""
    # The server handles Ctrl-C as soon as its event loop runs.
    with interrupts_end_process():
        from earmark_server.process import run

        return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
