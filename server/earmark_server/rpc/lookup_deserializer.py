"""Deserializes the requests of calls that need no inference."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_BYTES = 4096

GeneratedRequest = TypeVar("GeneratedRequest", bound=Message)
Request = TypeVar("Request")


def lookup_deserializer(
    kind: type[GeneratedRequest], convert: Callable[[GeneratedRequest], Request]
) -> Callable[[bytes], Request | CallError]:
    """Return a deserializer that converts a short message, and returns the CallError to raise for another."""

    def deserialize(serialized: bytes) -> Request | CallError:
        if len(serialized) > _MAX_BYTES:
            return CallError(
                "MESSAGE_TOO_LARGE",
                f"A {kind.DESCRIPTOR.name} may have at most {_MAX_BYTES} bytes, but has {len(serialized)}.",
                message_bytes=len(serialized),
            )
        try:
            return convert(kind.FromString(serialized))
        except DecodeError:
            return CallError("BAD_CONFIG", f"A message cannot be parsed as {kind.DESCRIPTOR.full_name}.")

    return deserialize
