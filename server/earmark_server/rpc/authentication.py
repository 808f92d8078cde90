"""Who calls, and whether they may: an interceptor in front of every RPC, reflection and health too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from earmark_server.credentials.reload import Followed
from earmark_server.credentials.tokens import Tokens
from earmark_server.rpc.principal import current_principal, current_token_digest
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from earmark_server.rpc.admission import Admission
    from earmark_server.settings import Settings

_HEALTH = "/grpc.health.v1.Health/"
_BEARER = "bearer "


class Authentication(grpc.aio.ServerInterceptor):
    """Lets calls with a token in; looks at a call once, at its beginning, and not at its messages.

    Raises BadFileError if the token file of the settings cannot be used.
    """

    def __init__(self, settings: Settings, admission: Admission) -> None:
        path = settings.token_file
        self._tokens = Followed([path], lambda: Tokens.read(path))
        self._admission = admission
        self._open_health = settings.open_health

    async def follow(self) -> None:
        """Look after the file for good, and end the calls of tokens that were taken out."""
        await self._tokens.follow(self._end_revoked)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """Give the handler of a call, or one that refuses it."""
        handler = await continuation(details)
        if self._open_health and details.method.startswith(_HEALTH):
            return handler
        try:
            digest = self._accepted(details.invocation_metadata)
        except CallError as error:
            # Whether there is such a method is nobody's business yet; nor is its name fit for a log.
            rpc = details.method.rpartition("/")[2] if handler is not None else "unknown"
            return self._admission.rejecting_handler(rpc, error)
        current_principal.set(self._tokens.value.name(digest))
        current_token_digest.set(digest)
        return handler

    def _accepted(self, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
        given = [value for key, value in metadata if key == "authorization" and isinstance(value, str)]
        if not given:
            raise CallError(
                "MISSING_CREDENTIALS",
                "This server wants a token: send `authorization: Bearer TOKEN` in the call's metadata.",
            )
        if len(given) == 1 and given[0][: len(_BEARER)].lower() == _BEARER:
            digest = self._tokens.value.digest(given[0][len(_BEARER) :].strip())
            if digest is not None:
                return digest
        raise CallError("BAD_CREDENTIALS", "This server does not accept that token.")

    def _end_revoked(self) -> None:
        for call in self._admission.open_calls:
            if call.token_digest is not None and call.token_digest not in self._tokens.value:
                call.end(CallError("BAD_CREDENTIALS", "This server no longer accepts that token."))
