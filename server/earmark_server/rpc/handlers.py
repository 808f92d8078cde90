"""What is served on the port beside health: the RPCs of the service, and server reflection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from earmark_server.rpc import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.rpc.service import KeywordSpottingService

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


def services(*, reflected: bool) -> Iterator[tuple[str, Any]]:
    """Give the descriptor of every service on the port, under the name that it is called by."""
    yield wire.SERVICE.full_name, wire.SERVICE
    yield _HEALTH.full_name, _HEALTH
    if reflected:
        descriptor = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]
        yield reflection.SERVICE_NAME, descriptor
        yield _REFLECTION_V1, descriptor


def register_service(
    server: grpc.aio.Server, service: KeywordSpottingService, max_message_bytes: int
) -> None:
    """Add the RPCs of earmark.v1 to a server.

    Not by the generated function, whose deserializers raise on what they cannot read: gRPC
    would tell the client the exception's text. These give the error to the RPC instead. Nor is any
    request read before its RPC begins (a stream of one message is the same to a client): one that
    is refused need not be read, and one that never comes ends in time.
    """
    unary = {
        "Spot": service.spot,
        "Classify": service.classify,
        "ListModels": service.list_models,
        "GetModel": service.get_model,
    }
    handlers = {
        name: grpc.stream_unary_rpc_method_handler(
            method,
            request_deserializer=wire.reader(name, max_message_bytes),
            response_serializer=wire.write,
        )
        for name, method in unary.items()
    }
    handlers["StreamingSpot"] = grpc.stream_stream_rpc_method_handler(
        service.streaming_spot,
        request_deserializer=wire.reader("StreamingSpot", max_message_bytes),
        response_serializer=wire.write,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE.full_name, handlers),))


def register_reflection(server: grpc.aio.Server) -> None:
    """Let clients ask which services there are, in the final and in the older protocol."""
    names = (wire.SERVICE.full_name, _HEALTH.full_name, reflection.SERVICE_NAME)
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
