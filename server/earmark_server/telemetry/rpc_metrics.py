"""Counts all RPCs of a server, health and reflection included, as the Prometheus middlewares for gRPC do.

Names and meanings are those of go-grpc-middleware's `providers/prometheus`. Messages are counted where they
are deserialized and serialized. Everything happens on the event loop, so no lock is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import grpc

from earmark_server.histogram import Histogram
from earmark_server.status import DETAILS_KEY, REASONS, broken_call_code, reason_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from earmark_server.rpc.handlers import Rpc
    from earmark_server.status import CallContext

# By whether the requests, and the responses, are streams.
_TYPES = {
    (False, False): ("unary", grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (True, False): ("client_stream", grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (False, True): ("server_stream", grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, True): ("bidi_stream", grpc.stream_stream_rpc_method_handler, "stream_stream"),
}

# A lookup takes a millisecond, and a stream may last all day.
_DURATION_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600, 36_000)

_CODES_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
CODES = tuple(
    "Canceled"
    if code is grpc.StatusCode.CANCELLED
    else "OK"
    if code is grpc.StatusCode.OK
    else "".join(word.title() for word in code.name.split("_"))
    for code in grpc.StatusCode
)
"""The status codes in Go's spelling, which dashboards expect."""
_SPELLING = dict(zip(grpc.StatusCode, CODES, strict=True))


class Method:
    """The counters of one RPC."""

    def __init__(self, rpc: Rpc) -> None:
        kind, _, _ = _TYPES[rpc.streams_requests, rpc.streams_responses]
        self.labels = (kind, rpc.service, rpc.method)
        """Type, service, method."""
        self.started = self.received = self.sent = 0
        self.handled = dict.fromkeys(CODES, 0)
        self.seconds = Histogram(_DURATION_BOUNDS_S)

    def counting_deserializer(
        self, deserialize: Callable[[bytes], object] | None
    ) -> Callable[[bytes], object]:
        """Return a deserializer that counts messages; None stands for the identity."""

        def count(serialized: bytes) -> object:
            self.received += 1
            return serialized if deserialize is None else deserialize(serialized)

        return count

    def counting_serializer(self, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
        """Return a serializer that counts messages; None stands for the identity."""

        def count(message: Any) -> bytes:
            self.sent += 1
            return message if serialize is None else serialize(message)

        return count


class RpcMetrics(grpc.aio.ServerInterceptor):
    """Counts the RPCs of some services. It must be the first interceptor of a server."""

    def __init__(self, rpcs: Iterable[Rpc]) -> None:
        """`rpcs`: the RPCs to count. Others are not counted, so that invented names need no memory."""
        self.methods = {rpc.path: Method(rpc) for rpc in rpcs}
        self.refusals = Counter(dict.fromkeys(REASONS, 0))
        """Calls that ended with an error of earmark.v1, by its reason."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return a handler that counts the call."""
        handler = await continuation(handler_call_details)
        method = self.methods.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        _, make_handler, attribute = _TYPES[handler.request_streaming, handler.response_streaming]
        return make_handler(
            self._counting_behavior(getattr(handler, attribute), method),
            request_deserializer=method.counting_deserializer(handler.request_deserializer),
            response_serializer=method.counting_serializer(handler.response_serializer),
        )

    def _counting_behavior(self, behavior: Callable[..., Any], method: Method) -> Callable[..., Any]:
        # gRPC treats an asynchronous generator and a coroutine function differently.
        if inspect.isasyncgenfunction(behavior):

            async def generate(request: object, context: CallContext) -> AsyncIterator[object]:
                with self._counting(method, context):
                    async for response in behavior(request, context):
                        yield response

            return generate

        async def call(request: object, context: CallContext) -> object:
            with self._counting(method, context):
                return await behavior(request, context)

        return call

    @contextlib.contextmanager
    def _counting(self, method: Method, context: CallContext) -> Iterator[None]:
        started_s = time.perf_counter()
        method.started += 1
        code = grpc.StatusCode.UNKNOWN
        try:
            yield
            code = _code(context)
        except asyncio.CancelledError:
            code = broken_call_code(context)
            raise
        except grpc.aio.AbortError:
            code = _code(context)
            details = dict(context.trailing_metadata()).get(DETAILS_KEY)
            if isinstance(details, bytes):
                self.refusals[reason_of(details)] += 1
            raise
        finally:
            method.handled[_SPELLING[code]] += 1
            method.seconds.add(time.perf_counter() - started_s)


def _code(context: CallContext) -> grpc.StatusCode:
    code: grpc.StatusCode | int | None = context.code()  # a number or None if no code was set
    return code if isinstance(code, grpc.StatusCode) else _CODES_BY_NUMBER[code or 0]
