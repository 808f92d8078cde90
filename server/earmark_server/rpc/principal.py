"""Who calls: the peer, the principal (the name of its credential), and the key of its quota."""

from __future__ import annotations

import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark_server.status import CallContext

current_peer: ContextVar[str] = ContextVar("current_peer")
"""The client's address of the call that runs in this context, as gRPC states it. Later, when the call is
cancelled, gRPC forgets it."""

current_principal: ContextVar[str | None] = ContextVar("current_principal", default=None)
"""The name of the credential of the call that runs in this context: that of its token, else the subject of
its client's certificate. None for a call without a credential."""

current_token_digest: ContextVar[bytes | None] = ContextVar("current_token_digest", default=None)
"""The SHA-256 of the token of the call that runs in this context. None for a call without a token."""


def set_principal_from_certificate(context: CallContext) -> None:
    """Set the principal to the subject of the client's certificate, which gRPC has verified.

    The principal of a token takes precedence.
    """
    if current_principal.get() is None:
        for names in (context.auth_context().get("x509_common_name"), context.peer_identities()):
            for name in names or ():
                current_principal.set(name.decode(errors="replace"))
                return


def quota_key(principal: str | None, peer: str) -> str:
    """Return the key that a call's streams are counted under: its principal, else the address of its peer.

    `peer` is in gRPC's notation: `ipv4:ADDRESS:PORT` or `ipv6:[ADDRESS]:PORT`. An IPv6 address stands for
    its /64 network, because one subscriber has all of it. Any other kind of peer is its own key.
    """
    if principal is not None:
        return f"client:{principal}"
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return peer
    address = ipaddress.ip_address(rest.rpartition(":")[0].strip("[]").partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return f"clientip:{ipaddress.ip_network((address, 64), strict=False)}"
        address = address.ipv4_mapped
    return f"clientip:{address}"
