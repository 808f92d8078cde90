"""The bridge: accepts connections of satellites, and knows the wake words of the server."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from earmark_audio.line_sampler import LineSampler
from earmark_client.client import Client
from earmark_client.errors import (
    EarmarkError,
    InvalidRequestError,
    NotInstalledError,
    ServerBusyError,
    ServerDrainingError,
    ServerUnreachableError,
    TimedOutError,
    UnknownModelError,
)

from earmark_wyoming.satellite import MAX_LINE_BYTES, Satellite
from earmark_wyoming.wake_words import wake_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from earmark_client.audio import KeywordSetting

    from earmark_wyoming.wake_words import WakeWord

# How often to ask the server for its models, which may be replaced or added.
_REFRESH_S = 30.0
_RETRY_S = 2.0
# A connection that has been silent for this long makes room for a new one, if there are too many.
_SILENT_S = 10.0
# Addresses that mean all networks. For each: its family, and an address on the route of the main network.
_EVERYWHERE = {"0.0.0.0": (socket.AF_INET, "224.0.0.251"), "::": (socket.AF_INET6, "2001:db8::1")}
_TEMPORARY = (ServerUnreachableError, ServerBusyError, ServerDrainingError, TimedOutError)


@dataclass(frozen=True, kw_only=True)
class BridgeOptions:
    """Where to serve, and which wake words.

    `uri`: tcp://HOST:PORT or unix://PATH. `zeroconf`: the name to announce, None for no announcement.
    `models`, `settings`, `threshold`: as for `wake_words`. `report`: prints a line.
    """

    uri: str
    zeroconf: str | None
    models: Sequence[str]
    settings: Sequence[KeywordSetting]
    threshold: float | None
    max_connections: int
    report: Callable[[str], None]


async def serve(address: str, credentials: Mapping[str, Any], options: BridgeOptions) -> None:
    """Serve satellites until SIGINT or SIGTERM, as a client of the server at `address`."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Client(address, **credentials) as client:
        bridge = _Bridge(client, options)
        serving = asyncio.create_task(bridge.run())
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not serving.done():
            serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


class _Bridge:
    def __init__(self, client: Client, options: BridgeOptions) -> None:
        self._client = client
        self._options = options
        self._words: Sequence[WakeWord] = ()
        self._satellites: dict[asyncio.Task[None], Satellite] = {}
        self._sampler = LineSampler()

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._wait_for_server()
        async with AsyncExitStack() as stack:
            server = await self._listen()
            stack.push_async_callback(self._close, server)
            if self._options.zeroconf is not None:
                await self._announce(stack, self._options.zeroconf, server.sockets)
            socket_name = server.sockets[0].getsockname()
            shown = socket_name if isinstance(socket_name, str) else f"port {socket_name[1]}"
            names = ", ".join(word.name for word in self._words)
            self._options.report(f"serving satellites at {shown} (Ctrl-C stops). Wake words: {names}")
            while True:
                await asyncio.sleep(_REFRESH_S)
                with suppress(EarmarkError):
                    await self._refresh()

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for task in self._satellites:
            task.cancel()
        await asyncio.gather(*self._satellites, return_exceptions=True)

    async def _wait_for_server(self) -> None:
        reported = False
        while True:
            try:
                await self._refresh()
                return
            except _TEMPORARY as error:
                if not reported:
                    self._options.report(f"{error}; waiting for it")
                    reported = True
            await asyncio.sleep(_RETRY_S)

    async def _refresh(self) -> None:
        models, names = await self._client.list_models(), self._options.models
        for name in names:
            if name not in {model.name for model in models}:
                raise UnknownModelError(f"the server has no model {name!r}", reason="UNKNOWN_MODEL")
        words = wake_words(models, names, self._options.settings, self._options.threshold)
        known = {word.setting.keyword for word in words}
        known |= {f"{word.model}/{word.setting.keyword}" for word in words}
        missing = [one.keyword for one in self._options.settings if one.keyword not in known]
        if missing:
            raise InvalidRequestError(
                f"no model of the server has the keyword {missing[0]!r}", reason="UNKNOWN_KEYWORD"
            )
        self._words = words

    async def _listen(self) -> asyncio.Server:
        uri = urlsplit(self._options.uri)
        try:
            if uri.scheme == "unix":
                path = Path(uri.netloc + uri.path)
                _remove_socket(path)
                return await asyncio.start_unix_server(self._accept, path, limit=MAX_LINE_BYTES)
            return await asyncio.start_server(self._accept, uri.hostname, uri.port, limit=MAX_LINE_BYTES)
        except (OSError, UnicodeError) as error:
            cause = str(error)
            if isinstance(error, socket.gaierror):
                cause = str(error.strerror)
            elif isinstance(error, UnicodeError):
                cause = "its host is neither an address nor a name"
            elif error.errno is not None:
                cause = os.strerror(error.errno)
            raise EarmarkError(f"cannot listen on {self._options.uri}: {cause}: give another --uri") from None

    async def _announce(self, stack: AsyncExitStack, name: str, sockets: Sequence[socket.socket]) -> None:
        """Announce the service, as Home Assistant discovers it; on the interfaces that it is served on."""
        try:
            import zeroconf
            from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf
        except ImportError as error:
            from earmark_audio.extras import install_command

            message = f"--zeroconf requires {error.name}: {install_command('wyoming')}"
            raise NotInstalledError(message) from error
        hosts = [str(one.getsockname()[0]) for one in sockets if one.family != socket.AF_UNIX]
        if not hosts:
            self._options.report("--zeroconf: a Unix socket is not announced")
            return
        everywhere = any(host in _EVERYWHERE for host in hosts)
        kind = "_wyoming._tcp.local."
        try:
            announcer = AsyncZeroconf(
                interfaces=zeroconf.InterfaceChoice.All if everywhere else hosts,
                ip_version=zeroconf.IPVersion.All
                if any(":" in h for h in hosts)
                else zeroconf.IPVersion.V4Only,
            )
            stack.push_async_callback(announcer.async_close)
            service = AsyncServiceInfo(
                kind,
                f"{name}.{kind}",
                parsed_addresses=[_own_address(host) for host in hosts],
                port=sockets[0].getsockname()[1],
            )
            await announcer.async_register_service(service, allow_name_change=True)
        except (OSError, zeroconf.Error) as error:
            self._options.report(f"cannot announce the service: {error}. Enter its address in Home Assistant")

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        name = peer[0] if isinstance(peer, tuple) else "satellite"
        if len(self._satellites) >= self._options.max_connections and not self._close_silent():
            self._report(name, f"rejected: there are {self._options.max_connections} connections")
            writer.close()
            return
        connection = writer.get_extra_info("socket")
        if connection.family != socket.AF_UNIX:
            # A satellite without power does not close its connection.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        satellite = Satellite(
            self._client,
            lambda: self._words,
            reader,
            writer,
            lambda text: self._report(name, text),
        )
        # Its own task: asyncio reports a traceback when the task of a connection is cancelled.
        task = asyncio.create_task(satellite.run())
        self._satellites[task] = satellite
        await asyncio.wait([task])
        self._satellites.pop(task, None)

    def _report(self, satellite: str, text: str) -> None:
        """Report a line about a satellite, unless there have been too many."""
        sampled = self._sampler.admit("satellite")
        if sampled is None:
            return
        if sampled:
            text = f"{text} ({sampled['suppressed']} lines before this one were suppressed)"
        self._options.report(f"{satellite}: {text}")

    def _close_silent(self) -> bool:
        """Close the connection that has been silent for the longest; return False if none is silent.

        Connections that do nothing could otherwise keep all satellites away.
        """
        task, satellite = min(
            self._satellites.items(), key=lambda item: (item[1].has_streams, item[1].last_event_s)
        )
        if asyncio.get_running_loop().time() - satellite.last_event_s < _SILENT_S:
            return False
        del self._satellites[task]
        task.cancel()
        return True


def _remove_socket(path: Path) -> None:
    """Remove the socket that an earlier run has left; OSError if another process listens on it.

    Also raises OSError for a file that is not a socket.
    """
    if not path.is_socket():
        if path.exists():
            raise OSError("the file there is not a socket")
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _own_address(host: str) -> str:
    """Return the address to announce: the one that is served, or for all of them that of the main network."""
    if host not in _EVERYWHERE:
        return host
    family, outside = _EVERYWHERE[host]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((outside, 1))  # nothing is sent
        return str(probe.getsockname()[0])
