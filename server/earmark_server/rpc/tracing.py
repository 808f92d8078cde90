"""One OpenTelemetry span for each call, sent over OTLP/HTTP to where the OTEL_* environment variables say.

A call's span is the child of the one that its client states, in the W3C's `traceparent`. A stream is told its
own in `traceresponse`; one that goes on with it after a break hands that back in `earmark-resumes`, and its
span gets a link to the one that broke. (W3C Trace Context, levels 1 and 2.)
"""

from __future__ import annotations

import importlib.metadata
import threading
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from earmark_server.rpc.wire import SERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.trace import Span, SpanContext

    from earmark_server.rpc.admission import Call

_RESUMES_KEY = "earmark-resumes"
_RESPONSE_KEY = "traceresponse"

# Only these are the server's fault:
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/#grpc-status
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

# How long the end of the server may wait for spans to be sent.
_LAST_SPANS_S = 5.0

_W3C = TraceContextTextMapPropagator()


class Tracing:
    """Makes the spans of a server's calls."""

    def __init__(self) -> None:
        self._provider = _from_environment()
        self._tracer = self._provider.get_tracer("earmark_server")

    def begin(self, rpc: str, metadata: Iterable[tuple[str, str | bytes]]) -> CallTrace:
        """Begin the span of a call with this metadata."""
        carrier = {key: value for key, value in metadata if isinstance(value, str)}
        broken = _span_context(carrier.get(_RESUMES_KEY, ""))
        span = self._tracer.start_span(
            f"{SERVICE.full_name}/{rpc}",
            context=_W3C.extract(carrier),
            kind=SpanKind.SERVER,
            links=[Link(broken)] if broken.is_valid else [],
            attributes={"rpc.system": "grpc", "rpc.service": SERVICE.full_name, "rpc.method": rpc},
        )
        return CallTrace(span)

    def close(self) -> None:
        """Send what has not been sent, within some seconds."""
        # Where nobody takes the spans, it tries on for longer than a server's end should wait.
        closing = threading.Thread(target=self._provider.shutdown, name="earmark-last-spans", daemon=True)
        closing.start()
        closing.join(_LAST_SPANS_S)


class CallTrace:
    """The span of one call."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        value = f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}"
        self.metadata = ((_RESPONSE_KEY, value),)
        """What tells the client of it."""

    def end(self, call: Call, status: str, reason: str | None) -> None:
        """End it with a status, by its name, and what else is known of the call."""
        known: dict[str, Any] = {
            "rpc.grpc.status_code": grpc.StatusCode[status].value[0],
            "earmark.request_id": call.request_id,
            "earmark.caller": call.caller,
            "earmark.model": call.model,
            "earmark.audio_s": None if call.audio_ns is None else call.audio_ns / 1e9,
            "earmark.detections": call.detection_count,
            "earmark.reason": reason,
        }
        self._span.set_attributes({key: value for key, value in known.items() if value is not None})
        if status in _FAULTS:
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
