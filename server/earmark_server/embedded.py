"""A server inside another program: on a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 15


@contextlib.contextmanager
def serve_in_thread(**overrides: Any) -> Iterator[str]:
    """Run a server while the block runs; gives its address, such as `127.0.0.1:40123`.

    `overrides` are settings by name; the port is one of the server's own choosing unless
    stated. Signals are left alone. Raises SettingsError, StartError or ModelError if it
    cannot start.
    """
    from earmark_server.settings import Settings

    settings = Settings(**{"port": 0, **overrides})
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
    thread = threading.Thread(
        target=_run, args=(settings, started), name="earmark-embedded-server", daemon=True
    )
    thread.start()
    loop, leave, port = started.result(_START_TIMEOUT_S)
    try:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield f"{host}:{port}"
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(_STOP_TIMEOUT_S)


def _run(settings: Any, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]) -> None:
    from earmark_server.event_loop import run

    try:
        run(_serve(settings, started))
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


async def _serve(
    settings: Any, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]]
) -> None:
    from earmark_server.server import Server

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_pass_over_closed_loops)
    server = Server(settings)
    await server.start()
    leave = asyncio.Event()
    started.set_result((loop, leave, server.port))
    await leave.wait()
    await server.stop()


def _pass_over_closed_loops(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep quiet about what is left of another loop's calls.

    All loops of a process share gRPC's completion queue; events of a client's loop that was
    closed in between surface in this one.
    """
    if "PollerCompletionQueue" not in str(context.get("handle", "")) + str(context.get("message", "")):
        loop.default_exception_handler(context)
