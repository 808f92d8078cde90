"""The limit on the metadata of a call, for clients that have not acknowledged it.

gRPC applies it only to those that have. The call of another client arrives with metadata of up to 16 MB,
hundreds of thousands of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_server.status import CallContext

_ENTRY_BYTES = 32
"""What an entry counts besides its key and its value (RFC 9113, section 6.5.2)."""


class MetadataLimit(grpc.GenericRpcHandler):
    """Handles the calls whose metadata are too large, whatever their method; add it before other handlers.

    Such a call does not count as one that its client may make, so the guard may close its connection.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[object, object] | None:
        """Return a handler that rejects the call, or None for the handlers that follow."""
        metadata: Sequence[tuple[str, str | bytes]] = handler_call_details.invocation_metadata
        # The number comes first: to add up the sizes of an attacker's half a million entries takes too long.
        if len(metadata) * _ENTRY_BYTES > self._max_bytes or _size(metadata) > self._max_bytes:
            return grpc.stream_stream_rpc_method_handler(self._reject)
        return None

    async def _reject(self, _: object, context: CallContext) -> None:
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"The metadata are longer than {self._max_bytes} bytes."
        )


def _size(metadata: Sequence[tuple[str, str | bytes]]) -> int:
    return sum(len(key) + len(value) + _ENTRY_BYTES for key, value in metadata)
