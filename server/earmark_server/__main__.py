"""The command `earmark-server`."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from earmark_server import logs
from earmark_server.command_line import read_settings
from earmark_server.supervisor import Line, supervise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_server.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal.

    Returns 0 after a drain, 1 if it could not start or was cut short; exits with 2 for wrong settings,
    and with 70 when it is stuck.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    line = Line.take(given)
    settings = read_settings(given if line is None else given[1:], os.environ)
    missing = _missing_package()
    if missing is not None:
        print(
            f"earmark-server: the package {missing} is missing: `pip install 'earmark[server]'`",
            file=sys.stderr,
        )
        return 1
    logs.configure(settings.log_level, settings.log_format, worker=None if line is None else os.getpid())
    if settings.workers > 1:
        return supervise(settings, given)
    # After the settings: a wrong one is told at once, without loading all this first. And not where
    # workers are supervised.
    from earmark_spotter import ModelError

    from earmark_server.event_loop import read_on_one_thread, run

    # gRPC would write a line of its own about every failed handshake, so for everybody who knocks.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    read_on_one_thread()
    from earmark_server.server import StartError

    try:
        return run(_serve(settings, line))
    except (StartError, ModelError) as error:
        if line is None:
            logs.log(logging.getLogger("earmark_server"), logging.ERROR, "cannot start", problem=str(error))
        else:
            line.say_problem(str(error))
        return 1


def _missing_package() -> str | None:
    """Return a package of the extra `server` that is not installed, or None."""
    packages = ("grpc_reflection", "onnxruntime", "prometheus_client", "soxr")
    return next((name for name in packages if importlib.util.find_spec(name) is None), None)


async def _serve(settings: Settings, line: Line | None) -> int:
    from earmark_server.server import Server

    loop = asyncio.get_running_loop()
    logs.log_what_nobody_catches(loop)
    asked, hurried = asyncio.Event(), asyncio.Event()
    signals = itertools.count(1)

    def on_signal() -> None:
        asked.set()
        if next(signals) > 1:
            hurried.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    def on_end() -> None:
        asked.set()
        hurried.set()

    server = Server(settings, shares_port=line is not None, owns_process=True)
    if line is not None:
        line.watch(asked.set, on_end)
    await server.start()
    if line is not None:
        line.say_serving()
    await asked.wait()
    draining = asyncio.create_task(server.drain())
    hurry = asyncio.create_task(hurried.wait())
    await asyncio.wait((draining, hurry), return_when=asyncio.FIRST_COMPLETED)
    if draining.done():
        hurry.cancel()
        draining.result()
        return 0
    draining.cancel()
    await asyncio.wait((draining,))
    await server.stop()
    return 1


if __name__ == "__main__":
    sys.exit(main())
