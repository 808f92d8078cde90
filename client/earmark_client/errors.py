"""What can go wrong, as one root error and its few kinds, each with a sentence on what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

_DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "earmark.v1"


class EarmarkError(Exception):
    """The root of everything that this package raises on purpose.

    `str(error)` is a sentence for a person. For programs:

    status         the gRPC status' name, such as ``INVALID_ARGUMENT``; empty where no server was involved
    reason         the contract's stable reason, such as ``UNKNOWN_KEYWORD``; empty where there is none
    retry_after_s  seconds to wait before trying again, where the server said so
    retryable      whether the same request may well succeed later, or on another server
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
    """The server, or the way to it, went away in the middle of a stream."""

    retryable = True


class ServerDrainingError(EarmarkError):
    """The server is about to stop and takes nothing new."""

    retryable = True


class ServerBusyError(EarmarkError):
    """The server has too much to do; `retry_after_s` may say when to come back."""

    retryable = True


class TimedOutError(EarmarkError):
    """No answer in time, or a stream on which nothing was sent, or its events not read, for too long."""

    retryable = True


class InvalidRequestError(EarmarkError, ValueError):
    """What was asked for, or sent, cannot be served: audio, format, keywords, thresholds, resume token."""


class UnknownModelError(EarmarkError):
    """The server has no model of that name."""


class AccessError(EarmarkError):
    """The server wants credentials, or other ones."""


class UntrustedServerError(EarmarkError):
    """What answers does not speak TLS, or cannot prove that it is the server that was asked for."""


class ServerFaultError(EarmarkError):
    """The server failed; its log tells more under the id in the message."""


class IncompatibleServerError(EarmarkError):
    """What answers does not serve `earmark.v1`, or cannot go on with what another server began."""


class RecordingError(EarmarkError):
    """A recording cannot be read: not there, not a recording, empty, damaged."""


class MicrophoneError(EarmarkError):
    """There is no microphone to listen to, or it cannot be opened."""


class NotInstalledError(EarmarkError):
    """An optional part of Earmark is needed and not installed."""


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
    """Turn a failed call's `grpc.RpcError` into this package's error.

    `error` is what either flavour of gRPC raises: it has `code()`, `details()` and
    `trailing_metadata()`. `answered`: the server had already sent something on this call.
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
            kind, text = ConnectionLostError, f"the server at {address} went away: {_cause(text)}"
        else:
            kind = ServerUnreachableError
            text = f"no Earmark server answers at {address} ({_cause(text)}): {_what_to_do(text)}"
    elif status == "UNIMPLEMENTED":
        text = f"what answers at {address} does not serve {_DOMAIN}: is that the right address? ({text})"
    elif status == "DEADLINE_EXCEEDED" and not reason:
        text = f"the server at {address} did not answer in time"
    elif status == "RESOURCE_EXHAUSTED" and not reason and "larger than max" in text:
        kind, reason = InvalidRequestError, "MESSAGE_TOO_LARGE"
        text = f"the recording is too large for one call: stream it instead ({text})"
    elif status == "CANCELLED":
        text = f"the call to {address} was cancelled: {text}"
    return kind(text or status, status=status, reason=reason, retry_after_s=retry_after_s)


def _details(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, float | None]:
    """Read ErrorInfo's reason and RetryInfo's delay in seconds out of trailing metadata."""
    reason, retry_after_s = "", None
    for key, value in metadata:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            details = status_pb2.Status.FromString(value).details
        except DecodeError:
            continue
        for detail in details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == _DOMAIN:
                reason = info.reason
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return reason, retry_after_s


# What BoringSSL and gRPC say when a connection is not trusted, and what that means to a person.
_UNTRUSTED = {
    "WRONG_VERSION_NUMBER": "does not speak TLS: leave out tls (--tls), or check the port",
    "certificate has expired": "has a certificate that has expired: it must be renewed there",
    "certificate is not yet valid": "has a certificate that is not valid yet: check the clocks",
    "Hostname Verification Check failed": "has a certificate for another name: use a name that is in it",
    "CERTIFICATE_VERIFY_FAILED": "has a certificate that no trusted authority signed: give that of its "
    "authority with Tls(ca=...) (--ca FILE)",
}
_UNTRUSTED["certificate signature failure"] = _UNTRUSTED["CERTIFICATE_VERIFY_FAILED"]


def _untrusted(text: str) -> str | None:
    return next((meaning for said, meaning in _UNTRUSTED.items() if said in text), None)


def _what_to_do(text: str) -> str:
    if "failed to connect" in text and "Socket closed" in text:
        # Neither is told apart from a server that dies.
        return (
            "it closed the connection at once, as a server does that speaks TLS to a client that does not "
            "(tls=True, --tls), or that wants a certificate of the client, or another one"
        )
    return "check the address, or start a server there with `earmark-server`"


def _cause(text: str) -> str:
    """Shorten gRPC's chain of causes to its end, which is what a person can act on."""
    last = re.split(r"last error: (?:UNKNOWN: |UNAVAILABLE: )?", text)[-1]
    # "ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused"
    return last.rsplit("remote host: ", 1)[-1].strip() or "connection closed"
