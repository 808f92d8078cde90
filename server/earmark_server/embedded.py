"""Runs a server inside another program, on a thread with its own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from earmark_server.settings import Settings, is_unix_socket

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 15


@contextlib.contextmanager
def serve_in_thread(**overrides: Any) -> Iterator[str]:
    """Run a server during the block; yield its address, such as `127.0.0.1:40123`.

    `overrides` are settings by name. The default port is a free one. Signal handlers are not changed. Raises
    SettingsError, StartError or ModelError if the server cannot start.
    """
    free_port = {} if is_unix_socket(str(overrides.get("host"))) else {"port": 0}
    settings = Settings(**{**free_port, **overrides})
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
    thread = threading.Thread(
        target=_run, args=(settings, started), name="earmark-embedded-server", daemon=True
    )
    thread.start()
    try:
        loop, stop, port = started.result(_START_TIMEOUT_S)
    except TimeoutError:
        from earmark_server.server import StartError

        # It may start later.
        started.add_done_callback(_stop)
        raise StartError(f"it was not ready after {_START_TIMEOUT_S} s: is this machine busy?") from None
    try:
        yield settings.address(port)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_STOP_TIMEOUT_S)


def _stop(started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]) -> None:
    if started.exception() is None:
        loop, stop, _ = started.result()
        loop.call_soon_threadsafe(stop.set)


def _run(settings: Settings, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]) -> None:
    from earmark_server.event_loop import run

    try:
        run(_serve(settings, started))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _serve(
    settings: Settings, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]
) -> None:
    from earmark_server.server import Server

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_ignore_closed_loops)
    server = Server(settings)
    await server.start()
    stop = asyncio.Event()
    started.set_result((loop, stop, server.port))
    await stop.wait()
    await server.stop()


def _ignore_closed_loops(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore errors that concern calls of another loop, and report any other error.

    All loops of a process share gRPC's completion queue. If the loop of a client has been closed, the
    remaining events of its calls arrive in this loop.
    """
    if "PollerCompletionQueue" not in str(context.get("handle", "")) + str(context.get("message", "")):
        loop.default_exception_handler(context)
