"""Calls of methods that do not exist."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_server.rpc.admission import Admission
    from earmark_server.status import CallContext

METHOD = "unknown"
"""The name that interceptors are given for such a method."""


def grpc_server(
    admission: Admission,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
    options: Sequence[tuple[str, Any]],
) -> grpc.aio.Server:
    """Return a server of gRPC that outlives calls of any path; its methods must be registered by name.

    From grpcio 1.84 on, grpc.aio decodes the path of a call whose method is not registered in the loop that
    accepts all calls. One path that is not UTF-8 ends that loop, and with it the server.
    """

    class Acceptor(cygrpc.AioServer):  # type: ignore[misc]
        """Accepts the calls of unknown methods itself, and leaves the others to gRPC."""

        def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
            if method is not None:
                return super()._make_request_call_future(method)  # type: ignore[no-any-return]
            return asyncio.create_task(self._reject_unknown_methods())

        async def _reject_unknown_methods(self) -> None:
            """Reject calls until the server stops, which raises an exception of gRPC."""
            handlers = _UnknownMethods(admission)
            loop = asyncio.get_running_loop()
            tasks = set()
            while True:
                call = await self._request_call()
                handling = cygrpc._handle_rpc(METHOD, handlers, tuple(interceptors), call, loop, False)
                task = loop.create_task(cygrpc._schedule_rpc_coro(handling, call, loop, METHOD))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    original, cygrpc.AioServer = cygrpc.AioServer, Acceptor
    try:
        return grpc.aio.server(interceptors=interceptors, options=options)
    finally:
        cygrpc.AioServer = original


class _UnknownMethods:
    """Rejects every call as gRPC would, and counts it.

    What such calls have sent would otherwise count as a flood on connections that clients share behind a
    proxy.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._handler: grpc.RpcMethodHandler[object, object] = grpc.stream_stream_rpc_method_handler(
            self._reject
        )

    def resolve_handler(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[object, object]:
        """Return a handler that rejects the call."""
        return self._handler

    async def _reject(self, _: object, context: CallContext) -> None:
        self._admission.count_rejected_call(context)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
