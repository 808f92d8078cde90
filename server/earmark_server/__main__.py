"""The command `earmark-server`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from earmark_server.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal.

    Returns 0 after a drain, 1 if it could not start or was cut short; exits with 2 for wrong settings.
    """
    settings = Settings.read(sys.argv[1:] if arguments is None else arguments, os.environ)
    # After the settings: a wrong one is told at once, without loading all this first.
    from earmark_spotter import ModelError

    from earmark_server import logs
    from earmark_server.event_loop import run
    from earmark_server.server import StartError

    logs.configure(settings.log_level, settings.log_format)
    try:
        return run(_serve(settings))
    except (StartError, ModelError) as error:
        logs.log(logging.getLogger("earmark_server"), logging.ERROR, "cannot start", problem=str(error))
        return 1


async def _serve(settings: Settings) -> int:
    from earmark_server.server import Server

    loop = asyncio.get_running_loop()
    asked, asked_twice = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (asked_twice if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    server = Server(settings)
    await server.start()
    await asked.wait()
    draining = asyncio.create_task(server.drain())
    hurry = asyncio.create_task(asked_twice.wait())
    await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
    if draining.done():
        hurry.cancel()
        draining.result()
        return 0
    draining.cancel()
    await server.stop()
    return 1


if __name__ == "__main__":
    sys.exit(main())
