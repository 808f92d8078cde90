"""Bearer tokens. The server's file has the name and the hash of each token, never the token itself."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets

from earmark_server.reload import BadFileError, read_file

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_LINE = re.compile(rf"({_NAME.pattern})\s+([0-9a-fA-F]{{64}})")

_REMEDY = "Add a line with earmark-server --new-token NAME FILE."


class AcceptedTokens:
    """The tokens that the server accepts: the SHA-256 of each, and the principal that it stands for.

    A plain hash is enough. A token made by --new-token has 256 random bits, so it cannot be guessed.
    """

    def __init__(self, principals: dict[bytes, str]) -> None:
        self._principals = principals

    @classmethod
    def read(cls, path: str) -> AcceptedTokens:
        """Read a file with one line per token, a name and the token's SHA-256; # starts a comment.

        A name may have several tokens, so that a new token can be distributed before the old one is removed.
        A file without tokens is valid: it revokes all of them.
        Raises BadFileError, which quotes nothing of the file, in case it contains a token by mistake.
        """
        principals: dict[bytes, str] = {}
        lines = read_file(path, "The token file").decode("utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            match = _LINE.fullmatch(text)
            if match is None:
                raise BadFileError(
                    f"Line {number} of the token file {path} must be a name and the SHA-256 of its token "
                    f"in hexadecimal. {_REMEDY}"
                )
            principals[bytes.fromhex(match[2])] = match[1]
        return cls(principals)

    def raise_if_empty(self, path: str) -> None:
        """Raise BadFileError if there is no token: a server that starts without any token has no use."""
        if not self._principals:
            raise BadFileError(f"The token file {path} contains no token. {_REMEDY}")

    def accepted_digest(self, token: str) -> bytes | None:
        """Return the SHA-256 of a token that is accepted; None for any other token.

        The comparison visits every hash in constant time, so its duration reveals nothing about them.
        """
        digest, accepted = hashlib.sha256(token.encode(errors="replace")).digest(), None
        for known in self._principals:
            if hmac.compare_digest(known, digest):
                accepted = known
        return accepted

    def principal(self, digest: bytes) -> str:
        """Return the principal that an accepted token stands for, by the token's digest."""
        return self._principals[digest]

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._principals


def add_token(name: str, path: str) -> str:
    """Create a token, append its line to a file, which may be new, and return the token.

    The file has only the token's hash, so the token cannot be recovered later. Raises BadFileError for an
    invalid name, or for a file that cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise BadFileError(
            f"A token's name must be at most 64 letters, digits, and . _ @ -, but is {name[:80]!r}."
        )
    token = secrets.token_urlsafe(32)
    line = f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"
    try:
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                line = "\n" + line
            # In a single write, because a server may read the file at any time.
            file.write(line.encode())
    except OSError as error:
        raise BadFileError(f"The token file {path} cannot be written: {error.strerror}.") from error
    return token
