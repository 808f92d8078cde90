"""The server's certificate, and whose certificates it wants: TLS and mutual TLS."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import grpc

from earmark_server.credentials.reload import BadFileError, Followed, read_file

if TYPE_CHECKING:
    from typing import Any

    from earmark_server.settings import Settings


class Certificates:
    """What new connections are encrypted with; it follows the files of the settings.

    Raises BadFileError if they cannot be used. A connection keeps what it began with.
    """

    def __init__(self, settings: Settings) -> None:
        self._certificate, self._key = settings.tls_certificate, settings.tls_key
        self._client_ca = settings.tls_client_ca
        paths = [path for path in (self._certificate, self._key, self._client_ca) if path]
        self._files = Followed(paths, self._read)
        self._in_force = self._files.value

    def credentials(self) -> grpc.ServerCredentials:
        """Make the credentials of a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._files.value, self._fetch, require_client_authentication=bool(self._client_ca)
        )

    async def follow(self) -> None:
        """Look after the files for good."""
        await self._files.follow(lambda: None)

    def _fetch(self) -> Any:
        """Give what has changed, on a thread of gRPC's, before each handshake."""
        newest = self._files.value
        if newest is self._in_force:
            return None
        self._in_force = newest
        return newest

    def _read(self) -> Any:
        certificate = read_file(self._certificate, "certificate")
        key = read_file(self._key, "key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # gRPC would only say that it failed. With a password, it would ask the terminal for one.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (ssl.SSLError, ValueError) as error:
            why = getattr(error, "reason", None)
            if why == "KEY_VALUES_MISMATCH":
                problem = f"The key {self._key} is not that of the certificate {self._certificate}."
            else:
                problem = (
                    f"The certificate {self._certificate} and its key {self._key} must be PEM files, the "
                    f"key without a password, but they cannot be read{f' ({why})' if why else ''}."
                )
            raise BadFileError(problem) from None
        except OSError as error:
            raise BadFileError(f"A certificate or key cannot be read: {error.strerror}.") from error
        return grpc.ssl_server_certificate_configuration(
            [(key, certificate)], root_certificates=self._read_client_ca()
        )

    def _read_client_ca(self) -> bytes | None:
        if not self._client_ca:
            return None
        authorities = read_file(self._client_ca, "client CA")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
                cadata=authorities.decode("ascii", "replace")
            )
        except (ssl.SSLError, ValueError):
            raise BadFileError(
                f"The client CA file {self._client_ca} must have certificates in PEM format in it."
            ) from None
        return authorities
