"""Who may call: bearer tokens, of which the server has names and hashes only."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets

from earmark_server.credentials.reload import BadFileError, read_file

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_LINE = re.compile(rf"({_NAME.pattern})\s+([0-9a-fA-F]{{64}})")

_HOW = "earmark-server --new-token NAME FILE adds a line"


class Tokens:
    """The tokens that are accepted, each by its SHA-256, which names the caller.

    A plain hash is enough: a token that --new-token made has 256 random bits, nothing to guess.
    """

    def __init__(self, names: dict[bytes, str]) -> None:
        self._names = names

    @classmethod
    def read(cls, path: str) -> Tokens:
        """Read lines of a name and the SHA-256 of its token; # begins a comment.

        A name may have several tokens, so that a new one can be handed out before the old one goes.
        Raises BadFileError, which quotes nothing of the file: somebody may have put a token there.
        """
        names: dict[bytes, str] = {}
        lines = read_file(path, "token").decode(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            if not text:
                continue
            found = _LINE.fullmatch(text)
            if found is None:
                raise BadFileError(
                    f"Line {number} of the token file {path} must be a name and the SHA-256 of its token "
                    f"in hexadecimal: {_HOW}."
                )
            names[bytes.fromhex(found[2])] = found[1]
        if not names:
            # As an operator would leave it who is just writing it; whom nobody may call needs no server.
            raise BadFileError(f"The token file {path} has no token in it: {_HOW}.")
        return cls(names)

    def digest(self, token: str) -> bytes | None:
        """Find the hash of a token that is accepted; None for any other.

        The time taken does not tell how much of a hash was right: all of them are looked at.
        """
        given, found = hashlib.sha256(token.encode(errors="replace")).digest(), None
        for known in self._names:
            if hmac.compare_digest(known, given):
                found = known
        return found

    def name(self, digest: bytes) -> str:
        """Name the caller to whom an accepted token was given."""
        return self._names[digest]

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._names


def add_token(name: str, path: str) -> str:
    """Make a token, add its line to a file, which may be new, and return it; nobody can get it back.

    Raises BadFileError for a name that no line can have, or a file that cannot be written.
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
            # In one piece: a server may read it at any time.
            file.write(line.encode())
    except OSError as error:
        raise BadFileError(f"The token file {path} cannot be written: {error.strerror}.") from error
    return token
