"""One OpenTelemetry span for each call, exported over OTLP/HTTP as the OTEL_* environment variables say.

A call's span is the child of the span in the `traceparent` of its metadata. A stream's initial metadata
names its span in `traceresponse`. A client that resumes the stream sends that value in `earmark-resumes`, and
the new span gets a link to the span of the stream that broke. See W3C Trace Context, levels 1 and 2.
"""

from __future__ import annotations

import importlib.metadata
import threading
from typing import TYPE_CHECKING

import grpc
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from earmark_server.rpc.requests import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.trace import Span, SpanContext

_RESUMES_KEY = "earmark-resumes"
_RESPONSE_KEY = "traceresponse"

# The statuses that count as errors of the server:
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status
_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

# How long the server's shutdown waits for the last spans to be sent.
_SHUTDOWN_TIMEOUT_S = 5.0

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Makes the spans of a server's calls."""

    def __init__(self) -> None:
        self._provider = _from_environment()
        self._tracer = self._provider.get_tracer("earmark_server")

    def start_span(self, rpc: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallSpan:
        """Start the span of a call; `metadata` is the call's."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        resumed = _span_context(carrier.get(_RESUMES_KEY, ""))
        span = self._tracer.start_span(
            f"{SERVICE.full_name}/{rpc}",
            context=_W3C.extract(carrier),
            kind=SpanKind.SERVER,
            links=[Link(resumed)] if resumed.is_valid else [],
            attributes={"rpc.system": "grpc", "rpc.service": SERVICE.full_name, "rpc.method": rpc},
        )
        return CallSpan(span)

    def close(self) -> None:
        """Send the remaining spans; give up after a few seconds."""
        # The provider retries for longer than the server's shutdown should take.
        closing = threading.Thread(target=self._provider.shutdown, name="earmark-last-spans", daemon=True)
        closing.start()
        closing.join(_SHUTDOWN_TIMEOUT_S)


class CallSpan:
    """The span of one call."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        value = f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
        self.metadata = ((_RESPONSE_KEY, value),)
        """Initial metadata that names the span to the client."""

    def end(self, status: str, reason: str | None, **values: str | float | None) -> None:
        """End the span with a status, by its name, and with the values that are not None as attributes.

        The name of each attribute is `earmark.` and that of its value.
        """
        attributes = {f"earmark.{name}": value for name, value in values.items() if value is not None}
        if reason is not None:
            attributes["earmark.reason"] = reason
        self._span.set_attributes({"rpc.grpc.status_code": grpc.StatusCode[status].value[0], **attributes})
        if status in _SERVER_ERRORS:
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end()


def _span_context(traceparent: str) -> SpanContext:
    return get_current_span(_W3C.extract({"traceparent": traceparent})).get_span_context()


def _from_environment() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "earmark-server"}))
    version = Resource({SERVICE_VERSION: importlib.metadata.version("earmark")})
    provider = TracerProvider(resource=version.merge(resource), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
