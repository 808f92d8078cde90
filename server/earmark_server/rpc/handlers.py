"""The services on the server's port beside health: the RPCs of earmark.v1, and server reflection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from earmark_server.rpc.requests import SERVICE, Deserializers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.rpc.service import KeywordSpottingService
    from earmark_server.settings import Settings

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


@dataclass(frozen=True, slots=True)
class Rpc:
    """The name of an RPC, and whether its requests and its responses are streams."""

    service: str
    method: str
    streams_requests: bool
    streams_responses: bool


def all_rpcs(*, reflection_enabled: bool) -> Iterator[Rpc]:
    """Yield every RPC on the port."""
    # Their descriptors; those of the libraries have no types.
    services: dict[str, Any] = {SERVICE.full_name: SERVICE, _HEALTH.full_name: _HEALTH}
    if reflection_enabled:
        descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        services |= {reflection.SERVICE_NAME: descriptor, _REFLECTION_V1: descriptor}
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
            service.streaming_spot, deserializers.streaming_spot
        ),
        "Spot": grpc.stream_unary_rpc_method_handler(service.spot, deserializers.spot),
        "Classify": grpc.stream_unary_rpc_method_handler(service.classify, deserializers.classify),
        "ListModels": grpc.stream_unary_rpc_method_handler(service.list_models, deserializers.list_models),
        "GetModel": grpc.stream_unary_rpc_method_handler(service.get_model, deserializers.get_model),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))


def register_reflection(server: grpc.aio.Server) -> None:
    """Add server reflection to a server, in its v1 and v1alpha protocols."""
    names = (SERVICE.full_name, _HEALTH.full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    # The two protocols have the same messages under two names.
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )
