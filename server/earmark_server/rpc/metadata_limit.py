"""The limit on the metadata of a call, for clients that have not acknowledged it.

gRPC applies it only to those that have. The call of another client arrives with metadata of up to 16 MB,
hundreds of thousands of entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from earmark_server.rpc.admission import Admission
    from earmark_server.status import CallContext

_ENTRY_BYTES = 32
"""What an entry counts besides its key and its value (RFC 9113, section 6.5.2)."""

_MAX_ENTRIES = 32_768
"""Metadata with more entries are an attack: Python needs 10 to 100 ms to read them."""


class MetadataLimit(grpc.aio.ServerInterceptor):
    """Rejects the calls whose metadata are too large, whatever their method.

    It comes before the authentication, which looks for a token in all of them. Such a call does not count as
    one that its client may make, so the guard may close its connection.
    """

    def __init__(self, max_bytes: int, admission: Admission) -> None:
        self._max_bytes = max_bytes
        self._admission = admission

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of a call, or one that rejects the call."""
        metadata: Sequence[tuple[str, str | bytes]] = handler_call_details.invocation_metadata
        if len(metadata) > _MAX_ENTRIES:
            return grpc.stream_stream_rpc_method_handler(self._cut_off)
        # The number comes first: to add up the sizes of an attacker's half a million entries takes too long.
        if len(metadata) * _ENTRY_BYTES > self._max_bytes or _size(metadata) > self._max_bytes:
            return grpc.stream_stream_rpc_method_handler(self._reject)
        return await continuation(handler_call_details)

    async def _cut_off(self, request: object, context: CallContext) -> None:
        self._admission.report_flood()
        await self._reject(request, context)

    async def _reject(self, _: object, context: CallContext) -> None:
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"The metadata are longer than {self._max_bytes} bytes."
        )


def _size(metadata: Sequence[tuple[str, str | bytes]]) -> int:
    return sum(len(key) + len(value) + _ENTRY_BYTES for key, value in metadata)
