"""Errors over HTTP: the contract's status and reason, and the code that fits them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from earmark_client.errors import EarmarkError, InvalidRequestError, RecordingError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.requests import Request

# As in google/rpc/code.proto, but for what is between this page and its server: no fault of the caller.
_CODES = {
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
_STATUSES = {404: "NOT_FOUND", 405: "UNIMPLEMENTED", 403: "PERMISSION_DENIED"}


def problem(
    code: int, status: str, reason: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Make the answer that says what was wrong."""
    return JSONResponse(
        {"error": {"status": status, "reason": reason, "message": message}}, code, headers=headers
    )


async def failed(_: Request, error: Exception) -> JSONResponse:
    """Answer where the service refused or could not be reached."""
    assert isinstance(error, EarmarkError)
    # Some requests are refused before they are sent, and have no status of the service.
    refused_here = isinstance(error, InvalidRequestError | RecordingError)
    status = error.status or ("INVALID_ARGUMENT" if refused_here else "UNKNOWN")
    code = 413 if error.reason == "MESSAGE_TOO_LARGE" else _CODES.get(status, 500)
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return problem(code, status, error.reason, str(error), headers)


async def wrong_request(_: Request, error: Exception) -> JSONResponse:
    """Answer what is wrong as HTTP already: an address, a method, a form."""
    assert isinstance(error, HTTPException)
    status = _STATUSES.get(error.status_code, "INVALID_ARGUMENT")
    return problem(error.status_code, status, "BAD_REQUEST", error.detail, dict(error.headers or {}))


async def fault(_: Request, error: Exception) -> JSONResponse:
    """Answer where this program is wrong; its log has the traceback."""
    return problem(
        500, "INTERNAL", "INTERNAL_ERROR", f"{type(error).__name__}: the log of `earmark web` tells more"
    )
