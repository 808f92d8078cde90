"""Counts of all RPCs of a server, health and reflection too, as Prometheus middlewares for gRPC keep them.

The names and their meaning are those of go-grpc-middleware's `providers/prometheus`. Messages are counted
where they are read and written, without a lock: all of it happens on the event loop.
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
    from collections.abc import Awaitable, Callable, Iterable, Iterator

# By whether requests, and answers, are streams.
_TYPES = {
    (False, False): ("unary", grpc.unary_unary_rpc_method_handler, "unary_unary"),
    (True, False): ("client_stream", grpc.stream_unary_rpc_method_handler, "stream_unary"),
    (False, True): ("server_stream", grpc.unary_stream_rpc_method_handler, "unary_stream"),
    (True, True): ("bidi_stream", grpc.stream_stream_rpc_method_handler, "stream_stream"),
}

# A lookup takes a millisecond, a stream may last all day.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3600, 36_000)

_CODES = {code.value[0]: code for code in grpc.StatusCode}
CODES = tuple(
    "Canceled"
    if code is grpc.StatusCode.CANCELLED
    else "OK"
    if code is grpc.StatusCode.OK
    else "".join(word.title() for word in code.name.split("_"))
    for code in grpc.StatusCode
)
"""The status codes as Go spells them, which is what dashboards ask for."""
_SPELLED = dict(zip(grpc.StatusCode, CODES, strict=True))


class Method:
    """The counts of one RPC."""

    def __init__(self, service: str, name: str, *, takes_stream: bool, gives_stream: bool) -> None:
        kind, _, _ = _TYPES[takes_stream, gives_stream]
        self.labels = (kind, service, name)
        """Type, service, method."""
        self.started = self.received = self.sent = 0
        self.handled = dict.fromkeys(CODES, 0)
        self.seconds = Histogram(_SECONDS)

    def reading(self, read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        """Count what is read."""

        def counting(serialized: bytes) -> Any:
            self.received += 1
            return serialized if read is None else read(serialized)

        return counting

    def writing(self, write: Callable[[Any], bytes] | None) -> Callable[[Any], bytes]:
        """Count what is written."""

        def counting(message: Any) -> bytes:
            self.sent += 1
            return message if write is None else write(message)

        return counting


class RpcMetrics(grpc.aio.ServerInterceptor):
    """Counts the RPCs of some services; to be the first of a server's interceptors."""

    def __init__(self, services: Iterable[tuple[str, Any]]) -> None:
        """`services`: their descriptors, under the names that they are called by.

        Calls of others are not counted: what clients make up must not take memory.
        """
        self.methods = {
            f"/{name}/{method.name}": Method(
                name, method.name, takes_stream=method.client_streaming, gives_stream=method.server_streaming
            )
            for name, service in services
            for method in service.methods
        }
        self.refusals = Counter(dict.fromkeys(REASONS, 0))
        """Calls that ended with an error of the contract, by its reason."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """Put the counting around a call."""
        handler = await continuation(handler_call_details)
        method = self.methods.get(handler_call_details.method)
        if handler is None or method is None:
            return handler
        _, make, field = _TYPES[handler.request_streaming, handler.response_streaming]
        return make(
            self._counted(getattr(handler, field), method),
            request_deserializer=method.reading(handler.request_deserializer),
            response_serializer=method.writing(handler.response_serializer),
        )

    def _counted(self, behaviour: Any, method: Method) -> Any:
        # gRPC looks at what kind of function it is.
        if inspect.isasyncgenfunction(behaviour):

            async def generate(request: Any, context: Any) -> Any:
                with self._counting(method, context):
                    async for response in behaviour(request, context):
                        yield response

            return generate

        async def answer(request: Any, context: Any) -> Any:
            with self._counting(method, context):
                return await behaviour(request, context)

        return answer

    @contextlib.contextmanager
    def _counting(self, method: Method, context: Any) -> Iterator[None]:
        begun_s = time.perf_counter()
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
            reason = reason_of(dict(context.trailing_metadata()).get(DETAILS_KEY))
            if reason is not None:
                self.refusals[reason] += 1
            raise
        finally:
            method.handled[_SPELLED[code]] += 1
            method.seconds.add(time.perf_counter() - begun_s)


def _code(context: Any) -> grpc.StatusCode:
    code = context.code()  # nothing, or a number, where nobody has set one
    return code if isinstance(code, grpc.StatusCode) else _CODES[code or 0]
