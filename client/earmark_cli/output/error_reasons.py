"""The reasons in JSON lines of type `error`."""

from __future__ import annotations

from earmark_client import errors

from earmark_cli.usage_error import UsageError

# Reasons of errors to which no server gave one. Of several classes that match, the first one counts.
_REASONS = {
    UsageError: "WRONG_USAGE",
    errors.ServerUnreachableError: "SERVER_UNREACHABLE",
    errors.ConnectionLostError: "CONNECTION_LOST",
    errors.ServerDrainingError: "DRAINING",
    errors.ServerBusyError: "SERVER_BUSY",
    errors.TimedOutError: "TIMED_OUT",
    errors.UnknownModelError: "UNKNOWN_MODEL",
    errors.AccessError: "ACCESS_DENIED",
    errors.UntrustedServerError: "UNTRUSTED_SERVER",
    errors.ServerFaultError: "SERVER_FAULT",
    errors.IncompatibleServerError: "INCOMPATIBLE_SERVER",
    errors.RecordingError: "BAD_RECORDING",
    errors.MicrophoneError: "MICROPHONE_FAILED",
    errors.NotInstalledError: "NOT_INSTALLED",
    errors.InvalidRequestError: "INVALID_REQUEST",
    errors.EarmarkError: "FAILED",
}


def error_reason(error: errors.EarmarkError) -> str:
    """Return the reason that the server gave, else one for the kind of the error; never empty."""
    return error.reason or next(reason for kind, reason in _REASONS.items() if isinstance(error, kind))
