"""Authentication: an interceptor that requires a token for every RPC, reflection and health included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from earmark_server.credentials.tokens import AcceptedTokens
from earmark_server.reload import ReloadedFiles
from earmark_server.rpc.handlers import all_rpcs
from earmark_server.rpc.principal import current_principal, current_token_digest
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from earmark_server.rpc.admission import Admission

_HEALTH = "/grpc.health.v1.Health/"
_BEARER = "bearer "
_METHODS = {rpc.path for rpc in all_rpcs(reflection_enabled=True)}


class Authentication(grpc.aio.ServerInterceptor):
    """Authenticates each call once, by its metadata; the messages of a call cost nothing more."""

    def __init__(self, token_file: str, admission: Admission, *, open_health: bool) -> None:
        """Read a token file; `open_health`: the health service needs no token.

        Raises BadFileError for a file that cannot be used.
        """
        self._tokens = ReloadedFiles(
            [token_file],
            lambda: AcceptedTokens.read(token_file),
            value_if_missing=lambda: AcceptedTokens({}),
        )
        self._tokens.value.raise_if_empty(token_file)
        self._admission = admission
        self._open_health = open_health

    @property
    def is_usable(self) -> bool:
        """Whether the token file can be used as it is now."""
        return self._tokens.is_usable

    async def reload_forever(self) -> None:
        """Reload the file whenever it changes, and end the calls of removed tokens; never returns."""
        await self._tokens.reload_forever(self._end_revoked)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler of a call, or one that rejects the call."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if self._open_health and method.startswith(_HEALTH):
            return handler
        try:
            digest = self._authenticate(handler_call_details.invocation_metadata)
        except CallError as error:
            # The answer is the same whether the method exists. The log gets no name that a stranger chose.
            rpc = method.rpartition("/")[2] if method in _METHODS else "unknown"
            return self._admission.rejecting_handler(rpc, error)
        current_principal.set(self._tokens.value.principal(digest))
        current_token_digest.set(digest)
        return handler

    def _authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
        """Return the digest of the token in a call's metadata; CallError if it is not accepted."""
        values = [value for key, value in metadata if key == "authorization" and isinstance(value, str)]
        if not values:
            raise CallError(
                "MISSING_CREDENTIALS",
                "This server requires a token. Send `authorization: Bearer TOKEN` in the call's metadata.",
            )
        if len(values) == 1 and values[0][: len(_BEARER)].lower() == _BEARER:
            digest = self._tokens.value.accepted_digest(values[0][len(_BEARER) :].strip())
            if digest is not None:
                return digest
        raise CallError("BAD_CREDENTIALS", "This server does not accept that token.")

    def _end_revoked(self) -> None:
        for call in self._admission.open_calls:
            if call.token_digest is not None and call.token_digest not in self._tokens.value:
                call.end(CallError("BAD_CREDENTIALS", "This server no longer accepts that token."))
