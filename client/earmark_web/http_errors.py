"""Errors over HTTP: a JSON body with the gRPC status and reason, and the HTTP code that matches them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from earmark_client import EarmarkError, InvalidRequestError, RecordingError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request

# As in google/rpc/code.proto, except that a failure between this process and the gRPC server, such as a
# rejected token, is a bad gateway (502): the HTTP client cannot fix it.
_HTTP_CODES = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAUTHENTICATED": 502,
    "PERMISSION_DENIED": 502,
    "UNIMPLEMENTED": 502,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_GRPC_STATUSES = {404: "NOT_FOUND", 405: "UNIMPLEMENTED", 403: "PERMISSION_DENIED"}


def error_response(
    code: int, status: str, reason: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error response: HTTP `code`, with the gRPC `status`, `reason` and `message` as JSON."""
    return JSONResponse(
        {"error": {"status": status, "reason": reason, "message": message}}, code, headers=headers
    )


async def handle_earmark_error(_: Request, error: Exception) -> JSONResponse:
    """Return the response to an error of the gRPC service or of its client."""
    assert isinstance(error, EarmarkError)
    # The client rejects some requests before it sends them; these errors have no gRPC status.
    rejected_by_client = isinstance(error, InvalidRequestError | RecordingError)
    status = error.status or ("INVALID_ARGUMENT" if rejected_by_client else "UNKNOWN")
    code = 413 if error.reason == "MESSAGE_TOO_LARGE" else _HTTP_CODES.get(status, 500)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return error_response(code, status, error.reason, str(error), headers)


async def handle_http_exception(_: Request, error: Exception) -> JSONResponse:
    """Return the response to a request that is wrong as HTTP: its path, method or form."""
    assert isinstance(error, HTTPException)
    status = _GRPC_STATUSES.get(error.status_code, "INVALID_ARGUMENT")
    return error_response(error.status_code, status, "BAD_REQUEST", error.detail, dict(error.headers or {}))


async def handle_internal_error(_: Request, error: Exception) -> JSONResponse:
    """Return the response to a bug in this process. The log has the traceback."""
    message = f"internal error ({type(error).__name__}): see the log of `earmark web`"
    return error_response(500, "INTERNAL", "INTERNAL_ERROR", message)
