"""Calls of methods that do not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from earmark_server.rpc.admission import Admission
    from earmark_server.status import CallContext


class UnknownMethods(grpc.GenericRpcHandler):
    """Handles the calls of methods that no other handler serves; add it after those.

    gRPC would give the same answer, but what these calls have sent would count as a flood on connections that
    clients share behind a proxy.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._handler: grpc.RpcMethodHandler[object, object] = grpc.stream_stream_rpc_method_handler(
            self._reject
        )

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[object, object]:
        """Return a handler that rejects the call."""
        return self._handler

    async def _reject(self, _: object, context: CallContext) -> None:
        self._admission.count_rejected_call(context)
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
