from __future__ import annotations

import earmark_client
import grpc
import pytest
from earmark_client import EarmarkError
from earmark_client.errors import error_from_rpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import AioRpcError, Metadata


def _failed(code: grpc.StatusCode, text: str, reason: str = "", retry_s: float = 0) -> AioRpcError:
    """Return the error of a failed call, with the details of the API if there is a reason."""
    status = status_pb2.Status(code=code.value[0], message=text)
    if reason:
        status.details.add().Pack(error_details_pb2.ErrorInfo(domain="earmark.v1", reason=reason))
    if retry_s:
        delay = Duration(seconds=int(retry_s), nanos=int(retry_s % 1 * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    details = ("grpc-status-details-bin", status.SerializeToString())
    return AioRpcError(code, Metadata(), Metadata(details) if reason else Metadata(), text)


@pytest.mark.parametrize(
    ("status", "reason", "kind", "retryable"),
    [
        ("INVALID_ARGUMENT", "UNKNOWN_KEYWORD", "InvalidRequestError", False),
        ("INVALID_ARGUMENT", "BAD_RESUME_TOKEN", "InvalidRequestError", False),
        ("NOT_FOUND", "UNKNOWN_MODEL", "UnknownModelError", False),
        ("RESOURCE_EXHAUSTED", "TOO_MANY_STREAMS", "ServerBusyError", True),
        ("UNAVAILABLE", "DRAINING", "ServerDrainingError", True),
        ("UNAVAILABLE", "", "ServerUnreachableError", True),
        ("DEADLINE_EXCEEDED", "IDLE_STREAM", "TimedOutError", True),
        ("UNAUTHENTICATED", "MISSING_CREDENTIALS", "AccessError", False),
        ("PERMISSION_DENIED", "BAD_CREDENTIALS", "AccessError", False),
        ("INTERNAL", "INTERNAL_ERROR", "ServerFaultError", False),
        ("UNIMPLEMENTED", "", "IncompatibleServerError", False),
        ("DATA_LOSS", "", "EarmarkError", False),
    ],
)
def test_each_status_has_its_error_class(status: str, reason: str, kind: str, retryable: bool) -> None:
    error = error_from_rpc(_failed(grpc.StatusCode[status], "why it is so", reason), "kws:50051")
    assert type(error) is getattr(earmark_client, kind)
    assert isinstance(error, EarmarkError)
    assert (error.status, error.reason, error.retryable) == (status, reason, retryable)
    if reason:
        assert str(error) == "why it is so"


def test_the_retry_delay_of_the_server_is_returned() -> None:
    failed = _failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "OVERLOADED", retry_s=1.5)
    assert error_from_rpc(failed, "kws:50051").retry_after_s == 1.5
    assert error_from_rpc(_failed(grpc.StatusCode.INTERNAL, "x", "INTERNAL_ERROR"), "a").retry_after_s is None


def test_a_lost_connection_differs_from_an_unreachable_server() -> None:
    failed = _failed(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    lost = error_from_rpc(failed, "kws:50051", answered=True)
    assert type(lost) is earmark_client.ConnectionLostError
    assert str(lost) == "the connection to the server at kws:50051 was lost: Socket closed"


def test_only_the_last_cause_is_reported() -> None:
    text = (
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
        "Failed to connect to remote host: Connection refused"
    )
    error = error_from_rpc(_failed(grpc.StatusCode.UNAVAILABLE, text), "localhost:1")
    assert str(error).startswith("no Earmark server answers at localhost:1 (Connection refused): ")
    assert "earmark-server" in str(error)


def test_a_message_that_grpc_finds_too_large_has_the_reason_of_the_api() -> None:
    text = "CLIENT: Received message larger than max (20000000 vs. 16777216)"
    error = error_from_rpc(_failed(grpc.StatusCode.RESOURCE_EXHAUSTED, text), "kws:50051")
    assert (type(error), error.reason) == (earmark_client.InvalidRequestError, "MESSAGE_TOO_LARGE")


def test_unknown_or_malformed_details_are_ignored() -> None:
    trailers = Metadata(("grpc-status-details-bin", b"\xff\xff\xff"), ("other", "text"))
    failed = AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), trailers, "it broke")
    error = error_from_rpc(failed, "kws:50051")
    assert (str(error), error.reason, error.retry_after_s) == ("it broke", "", None)


def test_details_that_are_cut_off_are_ignored() -> None:
    status = status_pb2.Status(code=3)
    info = status.details.add()
    info.Pack(error_details_pb2.ErrorInfo(domain="earmark.v1", reason="BAD_CONFIG"))
    info.value = info.value[:-3]
    trailers = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    failed = AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, Metadata(), trailers, "it is wrong")
    error = error_from_rpc(failed, "kws:50051")
    assert (type(error), str(error), error.reason) == (earmark_client.InvalidRequestError, "it is wrong", "")
