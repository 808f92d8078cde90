"""Accepts calls: gRPC's server, except for what strangers could end or occupy it with.

From grpcio 1.84 on, grpc.aio decodes the path of a call whose method is not registered in the loop that
accepts all calls. One path that is not UTF-8 ends that loop, and with it the server. And it reads the
metadata of each call, of connections too that the guard has closed, up to half a million entries.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from earmark_server.memory.peers import connection_of
from earmark_server.rpc.principal import current_peer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from earmark_server.rpc.admission import Admission
    from earmark_server.status import CallContext

_GUARD_INTERVALS, _GUARD_INTERVAL_S = 50, 0.02
"""How often, and after what time, a call that waits for the guard asks again: for at most a second."""

_CANCELLED_PEERS = ("", "unknown")
"""What gRPC states as the peer of a call that was cancelled before it was accepted."""

_UNKNOWN = "unknown"
"""The name that interceptors are given for every method that does not exist."""

_AIO_SERVER = cygrpc.AioServer
_REPLACING = threading.Lock()

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def grpc_server(
    admission: Admission,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    options: Sequence[tuple[str, Any]],
) -> grpc.aio.Server:
    """Return a server of gRPC. Its methods must be registered by name."""
    with _REPLACING:
        cygrpc.AioServer = _Acceptor
        try:
            server = grpc.aio.server(interceptors=interceptors, options=options)
        finally:
            cygrpc.AioServer = _AIO_SERVER
    acceptor: _Acceptor = server._server  # type: ignore[attr-defined]
    acceptor.admission, acceptor.interceptors = admission, tuple(interceptors)
    return server


class _Acceptor(cygrpc.AioServer):  # type: ignore[misc]
    """Accepts the calls of each method in a task. gRPC's own loop only waits for their end."""

    admission: Admission
    interceptors: tuple[grpc.aio.ServerInterceptor, ...]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._handlers: dict[str, _Handler] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add_registered_method_handlers(self, handlers: Mapping[str, _Handler]) -> None:
        super().add_registered_method_handlers(handlers)
        self._handlers.update(handlers)

    def resolve_handler(self, details: grpc.HandlerCallDetails) -> _Handler:
        """Return the handler of a call, once no interceptor has rejected it."""
        return self._handlers.get(details.method) or grpc.stream_stream_rpc_method_handler(self._reject)

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[None]:
        return asyncio.create_task(self._accept(method))

    async def _accept(self, method: bytes | None) -> None:
        """Accept the calls of a method, None for all unknown ones. Ends with an exception of gRPC."""
        if method is None:
            while True:
                await self._handle(await self._request_call(), _UNKNOWN)
        name = method.decode()
        while True:
            await self._handle(await self._request_registered_call(method), name)

    async def _handle(self, call: Any, name: str) -> None:
        """Start handling a call, or forget it, which makes gRPC free what it holds of it."""
        loop = asyncio.get_running_loop()
        peers = self.admission.peers
        for _ in range(_GUARD_INTERVALS):
            if not peers.flooding:
                break
            # The guard is about to close connections whose calls would occupy Python, and so delay it.
            await asyncio.sleep(_GUARD_INTERVAL_S)
        else:
            peers.flooding.clear()
        peer = cygrpc._ServicerContext(call, None, None, loop).peer()
        if peer in _CANCELLED_PEERS or connection_of(peer) in peers.closed:
            return
        current_peer.set(peer)
        handling = cygrpc._handle_rpc(name, self, self.interceptors, call, loop, False)
        task = loop.create_task(cygrpc._schedule_rpc_coro(handling, call, loop, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reject(self, _: object, context: CallContext) -> None:
        """Reject a call of an unknown method as gRPC would.

        It is counted: what such calls have sent would otherwise count as a flood on connections that clients
        share behind a proxy.
        """
        self.admission.count_rejected_call()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
