"""The keys that sign resume tokens, read from a file that all servers of a service share."""

from __future__ import annotations

import re

_MAX_KEYS = 16

_KEY = re.compile(rb"[!-~]{32,256}")


def read(path: str) -> tuple[bytes, ...]:
    """Read the keys, the one that signs first; none where there is no file (the path is empty).

    To replace a key: add the new one as the last line on every server, then make it the first on every
    server, then take the old one out; each time by a restart. Raises ValueError, never with a key in it.
    """
    if not path:
        return ()
    try:
        with open(path, "rb") as file:
            lines = file.read(1 << 16).splitlines()
    except OSError as error:
        raise ValueError(f"{path!r} cannot be read: {error.strerror}.") from None
    keys = tuple(line for line in (line.strip() for line in lines) if line)
    if not 0 < len(keys) <= _MAX_KEYS or not all(map(_KEY.fullmatch, keys)):
        raise ValueError(
            f"{path!r} must hold 1 to {_MAX_KEYS} keys, one a line, each of 32 to 256 ASCII characters "
            "without spaces: `openssl rand -hex 32` makes one."
        )
    return keys
