"""Credentials: TLS certificates and bearer tokens."""

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
    """TLS settings of a connection. The server's certificate is always verified.

    ca           PEM file of the trusted certificate authorities; None: gRPC's built-in public ones
    certificate  PEM file of the client's certificate, for servers that require one (mutual TLS)
    key          PEM file of that certificate's private key, without a password
    """

    ca: str | PathLike[str] | None = None
    certificate: str | PathLike[str] | None = None
    key: str | PathLike[str] | None = None


def channel_credentials(tls: bool | Tls) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel, None for plain text.

    Raises InvalidRequestError if the files cannot be used; gRPC would only report a failed connection.
    """
    if not tls:
        return None
    if tls is True:
        tls = Tls()
    if not isinstance(tls, Tls):
        raise InvalidRequestError(f"tls must be True or Tls(ca=...), not {type(tls).__name__}")
    if (tls.certificate is None) != (tls.key is None):
        raise InvalidRequestError("a client certificate and its key must be given together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca = certificate = key = None
    if tls.ca is not None:
        ca = _read(tls.ca)
        try:
            context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError):
            raise InvalidRequestError(f"{tls.ca} contains no certificates in PEM format") from None
    if tls.certificate is not None and tls.key is not None:
        certificate, key = _read(tls.certificate), _read(tls.key)
        try:
            context.load_cert_chain(tls.certificate, tls.key, password="")
        except (ssl.SSLError, ValueError) as error:
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                problem = f"the key {tls.key} does not belong to the certificate {tls.certificate}"
            else:
                problem = (
                    f"the certificate {tls.certificate} and its key {tls.key} must be PEM files, the key "
                    "without a password"
                )
            raise InvalidRequestError(problem) from None
    return grpc.ssl_channel_credentials(ca, key, certificate)


def token_metadata(token: str | None, *, is_private: bool) -> Metadata:
    """Return the call metadata that carries a token.

    `is_private`: whether nobody but the server can read what is sent. Raises InvalidRequestError, with a
    message that never contains the token, for a token that is malformed or would not stay private.
    """
    if token is None:
        return ()
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InvalidRequestError("the token must be a string of 1 to 4096 ASCII characters without spaces")
    if not is_private:
        raise InvalidRequestError(
            "a token is not sent in plain text to another machine, because anyone on the network could read "
            "it: use TLS (tls=True, or --tls)"
        )
    return (("authorization", f"Bearer {token}"),)


def _read(path: str | PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from None
