"""The errors of this package: one root class, a few kinds, and messages that name cause and remedy."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from earmark_client.connection_route import proxy_variable

if TYPE_CHECKING:
    from collections.abc import Iterable

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "earmark.v1"


class EarmarkError(Exception):
    """Base class of all errors that this package raises deliberately.

    `str(error)` is a message for people. For programs:

    status         name of the gRPC status, such as ``INVALID_ARGUMENT``; empty if no server was involved
    reason         stable reason of `earmark.v1`, such as ``UNKNOWN_KEYWORD``; empty if there is none
    retry_after_s  seconds to wait before a retry, if the server gave them
    retryable      whether the same request may succeed later, or on another server
    """

    retryable = False

    def __init__(
        self, message: str, *, status: str = "", reason: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


class ServerUnreachableError(EarmarkError):
    """No Earmark server answers at the address."""

    retryable = True


class ConnectionLostError(EarmarkError):
    """The connection or the server was lost during a stream."""

    retryable = True


class ServerDrainingError(EarmarkError):
    """The server is draining and accepts no new calls."""

    retryable = True


class ServerBusyError(EarmarkError):
    """The server is at its capacity; `retry_after_s` may say when to retry."""

    retryable = True


class TimedOutError(EarmarkError):
    """The answer took too long, or a stream sent no audio, or did not read its events, for too long."""

    retryable = True


class InvalidRequestError(EarmarkError, ValueError):
    """The request is invalid: its audio, format, keywords, thresholds or resume token."""


class UnknownModelError(EarmarkError):
    """The server has no model with that name."""


class AccessError(EarmarkError):
    """The server requires credentials, or rejects the ones that were sent."""


class UntrustedServerError(EarmarkError):
    """The server does not use TLS, or its certificate cannot be verified."""


class ServerFaultError(EarmarkError):
    """The server failed; its log has details under the id in the message."""


class IncompatibleServerError(EarmarkError):
    """The server does not serve `earmark.v1`, violates it, or cannot continue another server's stream."""


class RecordingError(EarmarkError):
    """A recording cannot be read: it is missing, of another file type, empty or damaged."""


class MicrophoneError(EarmarkError):
    """There is no microphone, or it cannot be opened."""


class NotInstalledError(EarmarkError):
    """An optional dependency of Earmark is needed and not installed."""


_KINDS: dict[str, type[EarmarkError]] = {
    "CANCELLED": ConnectionLostError,
    "DEADLINE_EXCEEDED": TimedOutError,
    "INTERNAL": ServerFaultError,
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": UnknownModelError,
    "OUT_OF_RANGE": InvalidRequestError,
    "PERMISSION_DENIED": AccessError,
    "RESOURCE_EXHAUSTED": ServerBusyError,
    "UNAUTHENTICATED": AccessError,
    "UNIMPLEMENTED": IncompatibleServerError,
    "UNKNOWN": ServerFaultError,
}


def error_from_rpc(error: Any, address: str, *, answered: bool = False) -> EarmarkError:
    """Convert the `grpc.RpcError` of a failed call.

    `error` comes from `grpc` or `grpc.aio`: it has `code()`, `details()` and `trailing_metadata()`.
    `answered`: the server had already sent a response on this call.
    """
    status = error.code().name
    text = error.details() or ""
    reason, retry_after_s = _details(error.trailing_metadata() or ())
    kind = _KINDS.get(status, EarmarkError)
    if status == "UNAVAILABLE":
        if reason:
            kind = ServerDrainingError
        elif (problem := _untrusted(text)) is not None:
            kind, text = UntrustedServerError, f"the server at {address} {problem}"
        elif answered:
            kind, text = (
                ConnectionLostError,
                f"the connection to the server at {address} was lost: {_cause(text)}",
            )
        else:
            kind = ServerUnreachableError
            text = f"no Earmark server answers at {address} ({_cause(text)}): {_remedy(text, address)}"
    elif status == "UNIMPLEMENTED":
        text = f"the server at {address} does not serve {_DOMAIN}: check the address ({text})"
    elif status == "DEADLINE_EXCEEDED" and not reason:
        text = str(timed_out(address))
    elif status == "RESOURCE_EXHAUSTED" and not reason and "larger than max" in text:
        kind, reason = InvalidRequestError, "MESSAGE_TOO_LARGE"
        text = f"the recording is too large for one call: stream it instead ({text})"
    elif status == "CANCELLED":
        text = f"the call to {address} was cancelled: {text}"
    return kind(text or status, status=status, reason=reason, retry_after_s=retry_after_s)


def client_closed() -> ConnectionLostError:
    """Return the error of a stream or call whose client was closed."""
    return ConnectionLostError("the client was closed before the call had ended")


def timed_out(address: str) -> TimedOutError:
    """Return the error of a call, other than a stream, that the server has not answered in time."""
    return TimedOutError(
        f"the server at {address} did not answer in time: retry later, or use another server"
    )


def not_answered(address: str, *, answered: bool) -> EarmarkError:
    """Return the error of a call that the server did not answer in time; `answered`: it had begun to."""
    if answered:
        return ConnectionLostError(f"the server at {address} has stopped answering the stream")
    return ServerUnreachableError(f"the server at {address} did not answer the stream in time")


def no_message(address: str) -> IncompatibleServerError:
    """Return the error of a call whose response is not a message of earmark.v1."""
    return IncompatibleServerError(
        f"the server at {address} sent a response that is not a message of {_DOMAIN}: check the address"
    )


def stream_incomplete(address: str) -> ConnectionLostError:
    """Return the error of a call that the server ended without an error before the stream was complete."""
    return ConnectionLostError(f"the server at {address} ended the call before the stream was complete")


def _details(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, float | None]:
    """Return ErrorInfo's reason, and RetryInfo's delay in seconds, from trailing metadata."""
    reason, retry_after_s = "", None
    for key, value in metadata:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        with contextlib.suppress(DecodeError):
            for detail in status_pb2.Status.FromString(value).details:
                info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
                if detail.Unpack(info) and info.domain == _DOMAIN:
                    reason = info.reason
                elif detail.Unpack(retry):
                    retry_after_s = max(0.0, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)
    return reason, retry_after_s


# Messages of BoringSSL and gRPC about connections that are not trusted, and their cause and remedy.
_UNTRUSTED = {
    "WRONG_VERSION_NUMBER": "does not use TLS: omit tls (--tls), or check the port",
    "certificate has expired": "has an expired certificate: renew it on the server",
    "certificate is not yet valid": "has a certificate that is not valid yet: check both clocks",
    "Hostname Verification Check failed": "has a certificate for another name: connect to a name "
    "that is in the certificate",
    "CERTIFICATE_VERIFY_FAILED": "has a certificate that no trusted authority has signed: give the "
    "certificate of its authority with Tls(ca=...) (--ca FILE)",
}
_UNTRUSTED["certificate signature failure"] = _UNTRUSTED["CERTIFICATE_VERIFY_FAILED"]


def _untrusted(text: str) -> str | None:
    return next((problem for message, problem in _UNTRUSTED.items() if message in text), None)


def _remedy(text: str, address: str) -> str:
    if (proxy := proxy_variable(address)) is not None:
        return (
            f"the connection led through the proxy that {proxy} names; add the server's name to no_proxy, "
            "or check the address"
        )
    if "failed to connect" in text and "Socket closed" in text:
        # A server that has just crashed looks the same.
        return (
            "the connection was closed at once, so the server may require TLS (tls=True, --tls), or a client "
            "certificate that it trusts (--certificate, --key)"
        )
    return "check the address, or start a server there with `earmark-server`"


def _cause(text: str) -> str:
    """Return the last of gRPC's chain of causes, the one on which a person can act."""
    last = re.split(r"last error: (?:UNKNOWN: |UNAVAILABLE: )?", text)[-1]
    # "ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused"
    return last.rsplit("remote host: ", 1)[-1].strip() or "connection closed"
