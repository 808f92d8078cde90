"""grpc.health.v1: whether the server, and its service, can serve calls.

It is implemented here, and not by grpcio-health-checking, so that its requests are read under the same limits
as those of all other calls, and so that a client that does not read its watch delays no other.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2

from earmark_server.rpc.call import CallKind
from earmark_server.rpc.lookup_deserializer import lookup_deserializer
from earmark_server.rpc.lookup_requests import OpenStreams
from earmark_server.rpc.requests import SERVICE
from earmark_server.rpc.uncancelled import uncancelled

if TYPE_CHECKING:
    from earmark_server.rpc.admission import Admission
    from earmark_server.rpc.lookup_requests import LookupRequests
    from earmark_server.status import CallContext

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

_MAX_WATCHES = 256
_MAX_WATCHES_PER_CLIENT = 64

# Clients open a new watch when one ends, without backoff.
_MAX_WATCH_S = 3600.0


class Health:
    """The health of the whole server (the name "") and of the service; both always have the same status."""

    def __init__(self, admission: Admission) -> None:
        self.serving = False
        """Whether the status is SERVING."""
        self._admission = admission
        self._watches = OpenStreams("health watch", _MAX_WATCHES, _MAX_WATCHES_PER_CLIENT)
        self._draining = False
        self._change = asyncio.Event()  # set, and replaced, when the status changes

    def register(self, server: grpc.aio.Server, requests: LookupRequests) -> None:
        """Add the health service to a server; `requests` reads the requests of the service there."""
        deserialize = lookup_deserializer(health_pb2.HealthCheckRequest, lambda request: request.service)
        # The requests of unary calls are streams here, as in `register_service`.
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.stream_unary_rpc_method_handler(partial(self._check, requests), deserialize),
            "Watch": grpc.stream_stream_rpc_method_handler(partial(self._watch, requests), deserialize),
        }
        server.add_registered_method_handlers(_HEALTH.full_name, handlers)

    def set_serving(self, serving: bool) -> None:
        """Set the status for all checks and watches; without effect after `drain`."""
        self.serving = serving and not self._draining
        self._change.set()
        self._change = asyncio.Event()

    def drain(self) -> None:
        """Set NOT_SERVING for good."""
        self._draining = True
        self.set_serving(False)

    async def _check(self, requests: LookupRequests, _: object, context: CallContext) -> bytes:
        async with self._admission.admitted(context, "Check", CallKind.PROBE) as call:
            service: str = await requests.only(context, call)
        if not self._is_known(service):
            await context.abort(grpc.StatusCode.NOT_FOUND, "This server has no service of that name.")
        return self._response(service)

    async def _watch(self, requests: LookupRequests, _: object, context: CallContext) -> None:
        with contextlib.ExitStack() as stack:
            async with self._admission.admitted(context, "Watch", CallKind.PROBE) as call:
                service: str = await requests.only(context, call)
                stack.enter_context(self._watches.counted(call.quota_key))
            # From here, the call is not among those that the server keeps.
            try:
                async with asyncio.timeout(_MAX_WATCH_S):
                    await self._report_changes(context, service)
            except TimeoutError:
                await context.abort(
                    grpc.StatusCode.UNAVAILABLE,
                    "A watch lasts for at most an hour. Open another one.",
                )

    async def _report_changes(self, context: CallContext, service: str) -> None:
        sent = b""
        while True:
            change, response = self._change, self._response(service)
            if response != sent:
                await uncancelled(context.write(response))
                sent = response
            await change.wait()

    def _response(self, service: str) -> bytes:
        response = health_pb2.HealthCheckResponse
        if not self._is_known(service):
            answer = response(status=response.SERVICE_UNKNOWN)
        else:
            answer = response(status=response.SERVING if self.serving else response.NOT_SERVING)
        serialized: bytes = answer.SerializeToString()
        return serialized

    @staticmethod
    def _is_known(service: str) -> bool:
        return service in ("", SERVICE.full_name)
