"""The RPCs on the server's port, and the handlers of those of earmark.v1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from earmark_server.rpc.reflection import REFLECTION_V1, REFLECTION_V1ALPHA
from earmark_server.rpc.requests import SERVICE, Deserializers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from earmark_server.rpc.service import KeywordSpottingService
    from earmark_server.settings import Settings

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]


@dataclass(frozen=True, slots=True)
class Rpc:
    """The name of an RPC, and whether its requests and its responses are streams."""

    service: str
    method: str
    streams_requests: bool
    streams_responses: bool

    @property
    def path(self) -> str:
        """Its name in HTTP/2."""
        return f"/{self.service}/{self.method}"


def all_rpcs(*, reflection_enabled: bool) -> Iterator[Rpc]:
    """Yield every RPC on the port."""
    # Their descriptors; those of the libraries have no types.
    services: dict[str, Any] = {SERVICE.full_name: SERVICE, _HEALTH.full_name: _HEALTH}
    if reflection_enabled:
        descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        services |= {REFLECTION_V1ALPHA: descriptor, REFLECTION_V1: descriptor}
    for name, service in services.items():
        for method in service.methods:
            yield Rpc(name, method.name, method.client_streaming, method.server_streaming)


def register_service(server: grpc.aio.Server, service: KeywordSpottingService, settings: Settings) -> None:
    """Add the RPCs of earmark.v1 to a server.

    The generated function cannot do it. Its deserializers raise on invalid bytes, and gRPC would send the
    text of the exception to the client; ours return the error to the RPC. It also reads the request of a
    unary call before the RPC starts. Here unary calls are streams of one message, which clients cannot
    distinguish, so that a rejected call is not read, and a request that never arrives runs into the idle
    timeout. The RPCs return serialized responses, so there are no serializers.
    """
    deserializers = Deserializers(settings)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "StreamingSpot": grpc.stream_stream_rpc_method_handler(
            _forgotten(service.streaming_spot), deserializers.streaming_spot
        ),
        "Spot": grpc.stream_unary_rpc_method_handler(_forgotten(service.spot), deserializers.spot),
        "Classify": grpc.stream_unary_rpc_method_handler(
            _forgotten(service.classify), deserializers.classify
        ),
        "ListModels": grpc.stream_unary_rpc_method_handler(service.list_models, deserializers.list_models),
        "GetModel": grpc.stream_unary_rpc_method_handler(service.get_model, deserializers.get_model),
    }
    server.add_registered_method_handlers(SERVICE.full_name, handlers)


def _forgotten(rpc: Callable[[object, Any], Awaitable[Any]]) -> Callable[[object, Any], Awaitable[Any]]:
    """Return an RPC of which nothing is kept after an error.

    gRPC keeps the error that ends a call in a cycle with it, until Python's next full collection. Its
    traceback would keep the recording of the call for as long.
    """

    async def call(requests: object, context: Any) -> Any:
        try:
            return await rpc(requests, context)
        except grpc.aio.AbortError as error:
            error.__context__ = None
            raise error.with_traceback(None) from None

    return call
