"""Server reflection, in its v1 and v1alpha protocols: lets clients list the services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from earmark_server.rpc.call import CallKind
from earmark_server.rpc.idle_timeout import end_when_idle
from earmark_server.rpc.lookup_deserializer import lookup_deserializer
from earmark_server.rpc.lookup_requests import OpenStreams
from earmark_server.rpc.request_reader import RequestReader
from earmark_server.rpc.requests import SERVICE
from earmark_server.rpc.uncancelled import uncancelled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from earmark_server.rpc.admission import Admission
    from earmark_server.settings import Settings
    from earmark_server.status import CallContext

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
REFLECTION_V1ALPHA: str = reflection.SERVICE_NAME

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]

# A client asks a few questions, one after the other, and ends.
_MAX_STREAMS = 8
_MAX_STREAMS_PER_CLIENT = 4
_IDLE_TIMEOUT_S = 10.0


class Reflection:
    """The reflection service."""

    def __init__(self, settings: Settings, admission: Admission) -> None:
        self._admission = admission
        self._idle_timeout_s = min(settings.idle_timeout_s, _IDLE_TIMEOUT_S)
        self._slow_reader_timeout_s = settings.slow_reader_timeout_s
        self._streams = OpenStreams("reflection", _MAX_STREAMS, _MAX_STREAMS_PER_CLIENT)
        names = (SERVICE.full_name, _HEALTH.full_name, REFLECTION_V1ALPHA)
        # Its types declare a coroutine, but it is an asynchronous generator.
        self._answers: Any = reflection.aio.ReflectionServicer(names)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a server."""
        # The two protocols have the same messages under two names.
        deserialize = lookup_deserializer(reflection_pb2.ServerReflectionRequest, lambda request: request)
        handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
            self._reflect, deserialize
        )
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"ServerReflectionInfo": handler}
        for name in (REFLECTION_V1, REFLECTION_V1ALPHA):
            server.add_registered_method_handlers(name, handlers)

    async def _reflect(self, _: object, context: CallContext) -> None:
        async with self._admission.admitted(context, "ServerReflectionInfo", CallKind.PROBE) as call:
            with (
                self._streams.counted(call.quota_key),
                end_when_idle(call, self._idle_timeout_s, self._slow_reader_timeout_s) as activity,
            ):
                requests = _requests(RequestReader(context, activity))
                async for response in self._answers.ServerReflectionInfo(requests, context):
                    activity.writing_since = activity.now()
                    await uncancelled(context.write(response.SerializeToString()))
                    activity.writing_since = None


async def _requests(reader: RequestReader[Any]) -> AsyncIterator[Any]:
    while (request := await reader.first()) is not None:
        yield request
