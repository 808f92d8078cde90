"""TLS and mutual TLS: the server's certificate, and the authorities of client certificates."""

from __future__ import annotations

import ssl

import grpc

from earmark_server.reload import BadFileError, ReloadedFiles, read_file


class Certificates:
    """The server's certificate, its key, and the authorities that sign client certificates.

    They are reloaded when their files change. New connections then use the new ones; open connections keep
    the old ones.
    """

    def __init__(self, certificate: str, key: str, client_ca: str = "") -> None:
        """Read the PEM files at three paths; an empty `client_ca`: clients need no certificate.

        Raises BadFileError for files that cannot be used.
        """
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        paths = [path for path in (certificate, key, client_ca) if path]
        self._files = ReloadedFiles(paths, self._read)
        self._sent_to_grpc = self._files.value

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for a port."""
        return grpc.dynamic_ssl_server_credentials(
            self._files.value,
            self._newest_if_changed,  # type: ignore[arg-type]  # gRPC accepts None, its types do not
            require_client_authentication=bool(self._client_ca),
        )

    @property
    def is_usable(self) -> bool:
        """Whether the files can be used as they are now."""
        return self._files.is_usable

    async def reload_forever(self) -> None:
        """Reload the files whenever they change; never returns."""
        await self._files.reload_forever()

    def _newest_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the configuration if it has changed; gRPC calls this on its own thread at each handshake."""
        newest = self._files.value
        if newest is self._sent_to_grpc:
            return None
        self._sent_to_grpc = newest
        return newest

    def _read(self) -> grpc.ServerCertificateConfiguration:
        certificate = read_file(self._certificate, "The certificate file")
        key = read_file(self._key, "The key file")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # gRPC's own error has no reason. Without a password argument, OpenSSL would prompt for one.
            context.load_cert_chain(self._certificate, self._key, password="")
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None)
            if reason == "KEY_VALUES_MISMATCH":
                problem = f"The key {self._key} does not belong to the certificate {self._certificate}."
            else:
                problem = (
                    f"The certificate {self._certificate} and its key {self._key} must be PEM files, the "
                    "key without a password, but they cannot be read"
                    f"{f' ({reason})' if reason else ''}."
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
        authorities = read_file(self._client_ca, "The client CA file")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(
                cadata=authorities.decode("ascii", "replace")
            )
        except (ssl.SSLError, ValueError):
            raise BadFileError(
                f"The client CA file {self._client_ca} must contain certificates in PEM format."
            ) from None
        return authorities
