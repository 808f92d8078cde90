"""Errors of calls: the status codes and reasons of earmark.v1, and their google.rpc details."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from earmark_spotter import SpotterError
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

CallContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""gRPC's context of a call with any types of messages."""

DOMAIN = "earmark.v1"
DETAILS_KEY = "grpc-status-details-bin"

RETRY_AFTER_S = 1
"""The delay in the RetryInfo of RESOURCE_EXHAUSTED and UNAVAILABLE: streams end every second."""

# gRPC may reject headers of more than 8 KiB. Some messages quote data of the client, and each of their
# bytes that is not ASCII is encoded as three.
_MAX_MESSAGE_BYTES = 1000

_CODES = {
    "CONFIG_EXPECTED_FIRST": grpc.StatusCode.INVALID_ARGUMENT,
    "CONFIG_REPEATED": grpc.StatusCode.INVALID_ARGUMENT,
    "BAD_CONFIG": grpc.StatusCode.INVALID_ARGUMENT,
    "UNSUPPORTED_ENCODING": grpc.StatusCode.INVALID_ARGUMENT,
    "UNSUPPORTED_SAMPLE_RATE": grpc.StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_KEYWORD": grpc.StatusCode.INVALID_ARGUMENT,
    "BAD_THRESHOLD": grpc.StatusCode.INVALID_ARGUMENT,
    "BAD_AUDIO": grpc.StatusCode.INVALID_ARGUMENT,
    "BAD_RESUME_TOKEN": grpc.StatusCode.INVALID_ARGUMENT,
    "MESSAGE_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MISSING_CREDENTIALS": grpc.StatusCode.UNAUTHENTICATED,
    "BAD_CREDENTIALS": grpc.StatusCode.UNAUTHENTICATED,
    "UNKNOWN_MODEL": grpc.StatusCode.NOT_FOUND,
    "TOO_MANY_STREAMS": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
    "ENGINE_STALLED": grpc.StatusCode.UNAVAILABLE,
    "STREAM_TOO_LONG": grpc.StatusCode.OUT_OF_RANGE,
    "SLOW_READER": grpc.StatusCode.DEADLINE_EXCEEDED,
    "IDLE_STREAM": grpc.StatusCode.DEADLINE_EXCEEDED,
    "INTERNAL_ERROR": grpc.StatusCode.INTERNAL,
}
REASONS = tuple(_CODES)
"""Every reason."""

_RETRYABLE = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)


class CallError(Exception):
    """An error that ends a call, and that its client receives.

    `reason`: a reason of earmark.v1. `field`: the field that causes the error, as a path in the request such
    as `config.keywords[0].threshold`; empty if no field does. `quota`: the quota key whose limit is reached.
    `message_bytes`: the size of the message that was rejected, if it is too large.
    """

    def __init__(
        self, reason: str, message: str, *, field: str = "", quota: str = "", message_bytes: int = 0
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = _shortened(message)
        self.field = field
        self.quota = quota
        self.message_bytes = message_bytes

    @property
    def code(self) -> grpc.StatusCode:
        """The status code that belongs to the reason."""
        return _CODES[self.reason]

    def details(self) -> bytes:
        """Return the serialized google.rpc.Status, for the trailing metadata under DETAILS_KEY."""
        number, _ = self.code.value
        status = status_pb2.Status(code=number, message=self.message)
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.quota:
            exceeded = error_details_pb2.QuotaFailure.Violation(subject=self.quota, description=self.message)
            status.details.add().Pack(error_details_pb2.QuotaFailure(violations=[exceeded]))
        if self.code in _RETRYABLE:
            status.details.add().Pack(
                error_details_pb2.RetryInfo(retry_delay=Duration(seconds=RETRY_AFTER_S))
            )
        serialized: bytes = status.SerializeToString()
        return serialized


@contextlib.contextmanager
def attribute_errors_to(field: str) -> Iterator[None]:
    """Convert a SpotterError that the block raises to a CallError that names a field of the request."""
    try:
        yield
    except SpotterError as error:
        raise CallError(error.reason, str(error), field=field) from error


def broken_call_code(context: CallContext) -> grpc.StatusCode:
    """Return the status code of a call that broke off: its deadline has passed, or its client is gone."""
    deadline_passed = context.time_remaining() == 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if deadline_passed else grpc.StatusCode.CANCELLED


def reason_of(details: bytes) -> str:
    """Return the reason in serialized details, as `CallError.details` returns them."""
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    return str(info.reason)


def _shortened(message: str) -> str:
    encoded = message.encode(errors="replace")
    if len(encoded) <= _MAX_MESSAGE_BYTES:
        return message
    return encoded[:_MAX_MESSAGE_BYTES].decode(errors="ignore") + " ..."
