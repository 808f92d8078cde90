"""Same-origin checks on requests, and security headers on responses."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.websockets import WebSocketClose

from earmark_web.http_errors import error_response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # After an upgrade, a browser must not mix new files with cached old ones.
    "cache-control": "no-cache",
}


class SameOriginMiddleware:
    """Reject requests that another site sends through a visitor's browser, with status 403.

    The Host header must be a numeric address, `localhost` or one of `names`; this stops DNS rebinding. The
    Origin header, if present, must match the Host header or be one of `origins`; this stops cross-site
    requests. Programs that are not browsers send no Origin header. Pages of `origins` may read the responses
    (CORS).
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._app = app
        self._origins = {origin.lower() for origin in origins}
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on to the application, or reject it."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        reason = self._rejection_reason(scope)
        if reason is None:
            origin = Headers(scope=scope).get("origin", "")
            cors = {"access-control-allow-origin": origin, "vary": "origin"}
            more = cors if origin.lower() in self._origins else {}
            await self._app(scope, receive, _with_headers(send, {**_SECURITY_HEADERS, **more}))
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, reason)(scope, receive, send)
        else:
            response = error_response(403, "PERMISSION_DENIED", "FOREIGN_SITE", reason)
            await response(scope, receive, _with_headers(send, _SECURITY_HEADERS))

    def _rejection_reason(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_allowed_host(host):
            return f"{host!r} is not a known name of this page: add it with `earmark web --name`"
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        if origin is not None and origin.lower() not in {f"{scheme}://{host}".lower(), *self._origins}:
            if origin.lower() == f"https://{host}".lower():
                return (
                    "the page was opened with https, but no trusted proxy says so: let the proxy set "
                    "X-Forwarded-Proto, and add its address with `earmark web --trusted-proxy`"
                )
            return (
                f"requests from another site ({origin!r}) are rejected: open this page directly, or add the "
                "site with `earmark web --allow-origin`"
            )
        return None

    def _is_allowed_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return send_with_headers
