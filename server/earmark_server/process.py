"""The process of `earmark-server`: start the server or its supervisor, handle signals, exit."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from earmark_audio.terminal import report_unwritable

from earmark_server import logs
from earmark_server.command_line import misspelt_variables, read_settings
from earmark_server.supervisor import SupervisorLink, ignore_drain_signals, on_drain_signals, supervise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_server.server import Server
    from earmark_server.settings import Settings

_ACCEPTING_INTERVAL_S = 0.25

# How long a server may take to stop, after the grace period of a drain. Each step of it takes less.
_STOP_TIME_S = 10.0


def run(arguments: Sequence[str] | None) -> int:
    """Serve until a signal arrives; return the exit code. `arguments`: None for those of the process.

    The exit code is 0 after a drain, and 1 if the server could not start or was ended early. Invalid settings
    exit with 2, and a server that is stalled, accepts no calls or does not stop with 70.
    """
    _open_standard_files()
    all_arguments = list(sys.argv[1:] if arguments is None else arguments)
    link = SupervisorLink.open(all_arguments)
    try:
        settings = read_settings(all_arguments if link is None else all_arguments[1:], os.environ)
    except OSError as error:
        report_unwritable("earmark-server", error)  # the help, say
        return 1
    missing = _missing_package()
    if missing is not None:
        from earmark_audio.extras import install_command

        print(
            f"earmark-server: the package {missing} is missing: {install_command('server')}",
            file=sys.stderr,
        )
        return 1
    logs.configure(settings.log_level, settings.log_format, worker=None if link is None else os.getpid())
    if link is None:
        for variable, nearest in misspelt_variables(os.environ).items():
            logs.log(
                logging.getLogger("earmark_server"),
                logging.WARNING,
                "unknown variable",
                variable=variable,
                did_you_mean=nearest,
            )
    if settings.workers > 1:
        return supervise(settings, all_arguments)
    # These imports are heavy. Invalid settings are reported before them, and a supervisor does without them.
    from earmark_spotter import ModelError

    from earmark_server import event_loop

    # Otherwise lines of gRPC, for every failed handshake for example, would stand between those of the log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from earmark_server.server import StartError

    try:
        return event_loop.run(_serve(settings, link))
    except (StartError, ModelError) as error:
        if link is None:
            logs.log(logging.getLogger("earmark_server"), logging.ERROR, "cannot start", problem=str(error))
        else:
            link.report_problem(str(error))
        return 1


def _open_standard_files() -> None:
    """Open the standard files that are closed.

    Otherwise a socket of gRPC would get the number of one of them, and be written to or closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _missing_package() -> str | None:
    """Return a package of the extra `server` that is not installed, or None."""
    packages = ("grpc_reflection", "onnxruntime", "prometheus_client", "soxr")
    return next((name for name in packages if importlib.util.find_spec(name) is None), None)


async def _serve(settings: Settings, link: SupervisorLink | None) -> int:
    from earmark_server.server import Server

    loop = asyncio.get_running_loop()
    logs.log_uncaught_errors(loop)
    drain_requested, stop_requested = asyncio.Event(), asyncio.Event()
    signals = itertools.count(1)

    def on_signal() -> None:
        drain_requested.set()
        if next(signals) > 1:
            stop_requested.set()

    on_drain_signals(on_signal)

    def on_stop() -> None:
        drain_requested.set()
        stop_requested.set()

    server = Server(settings, shares_port=link is not None, owns_process=True)
    if link is not None:
        link.watch(drain_requested.set, on_stop)
    if not await _started(server, drain_requested):
        return 1
    if link is not None:
        link.report_serving()
    watching = asyncio.create_task(_exit_when_not_accepting(server))
    await drain_requested.wait()
    watching.cancel()
    _exit_unless_ended_within(settings.drain_grace_s + _STOP_TIME_S)
    draining = asyncio.create_task(server.drain())
    stopping = asyncio.create_task(stop_requested.wait())
    await asyncio.wait((draining, stopping), return_when=asyncio.FIRST_COMPLETED)
    exit_code = 0
    if draining.done():
        stopping.cancel()
        draining.result()
    else:
        exit_code = 1
        _exit_unless_ended_within(_STOP_TIME_S)
        draining.cancel()
        await asyncio.wait((draining,))
        await server.stop()
    ignore_drain_signals()
    return exit_code


async def _exit_when_not_accepting(server: Server) -> None:
    """End the process once it accepts no calls: what started it starts it again, and streams resume."""
    from earmark_server.inference.watchdog import exit_process

    while server.is_accepting:  # noqa: ASYNC110 - gRPC announces it nowhere
        await asyncio.sleep(_ACCEPTING_INTERVAL_S)
    exit_process("gRPC has stopped accepting calls")


def _exit_unless_ended_within(limit_s: float) -> None:
    """End the process if it is still there after a time, whatever it waits for."""
    from earmark_server.inference.watchdog import exit_process, stack

    def exit_now() -> None:
        exit_process("the server did not stop", stack=stack(threading.main_thread()))

    timer = threading.Timer(limit_s, exit_now)
    timer.daemon = True  # the process does not wait for it
    timer.start()


async def _started(server: Server, drain_requested: asyncio.Event) -> bool:
    """Start a server; return False if it was to end before it was serving."""
    starting = asyncio.create_task(server.start())
    requested = asyncio.create_task(drain_requested.wait())
    await asyncio.wait((starting, requested), return_when=asyncio.FIRST_COMPLETED)
    requested.cancel()
    if starting.done():
        starting.result()
        return True
    # A thread loads a model, and cannot be interrupted. Python would wait for it.
    logs.log(logging.getLogger("earmark_server"), logging.WARNING, "stopped before serving")
    os._exit(1)
