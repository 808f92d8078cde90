"""How a client knows its server, and shows who it is: TLS and bearer tokens."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from earmark_client.errors import InvalidRequestError

if TYPE_CHECKING:
    from os import PathLike

_TOKEN = re.compile(r"[!-~]{1,4096}")

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted connection, to a server whose certificate is checked.

    ca           PEM file of the authorities that are trusted; None: the public ones, as gRPC knows them
    certificate  PEM file of the client's own certificate, where the server wants one
    key          PEM file of that certificate's key, without a password
    """

    ca: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None


def credentials(tls: bool | Tls) -> grpc.ChannelCredentials | None:
    """Make a channel's credentials; None for plain text.

    InvalidRequestError where the files cannot be used: gRPC would only say that it did not connect.
    """
    if not tls:
        return None
    if tls is True:
        tls = Tls()
    if (tls.certificate is None) != (tls.key is None):
        raise InvalidRequestError("a client's certificate and its key must be given together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca = certificate = key = None
    if tls.ca is not None:
        ca = _read(tls.ca)
        try:
            context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise InvalidRequestError(f"{tls.ca} has no certificates in PEM format in it") from None
    if tls.certificate is not None and tls.key is not None:
        certificate, key = _read(tls.certificate), _read(tls.key)
        try:
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except (ssl.SSLError, ValueError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                problem = f"the key {tls.key} is not that of the certificate {tls.certificate}"
            else:
                problem = (
                    f"the certificate {tls.certificate} and its key {tls.key} must be PEM files, the key "
                    "without a password"
                )
            raise InvalidRequestError(problem) from None
    return grpc.ssl_channel_credentials(ca, key, certificate)


def metadata(token: str | None, *, is_safe: bool) -> Metadata:
    """Make what goes with every call.

    InvalidRequestError, never with the token in it, for one that cannot be sent, or must not: `is_safe`
    says whether only the server can read along.
    """
    if token is None:
        return ()
    if not _TOKEN.fullmatch(token):
        raise InvalidRequestError("the token must be 1 to 4096 ASCII characters without spaces")
    if not is_safe:
        raise InvalidRequestError(
            "a token is not sent in plain text to another machine, where anybody on the way could read it: "
            "use TLS (tls=True, or --tls)"
        )
    return (("authorization", f"Bearer {token}"),)


def _read(path: str | PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None
