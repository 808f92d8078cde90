"""The keys that sign resume tokens, read from a file that all servers of a service share."""

from __future__ import annotations

import re

from earmark_server.reload import read_file

_MAX_KEYS = 16
_MAX_FILE_BYTES = 1 << 16

_KEY = re.compile(rb"[!-~]{32,256}")


def read_resume_keys(path: str) -> tuple[bytes, ...]:
    """Return the keys in a file, the one that signs first; no keys for an empty path.

    To replace a key, append the new one to the file on every server. Then make it the first line on every
    server. Then remove the old one. Each step needs a restart. Raises ValueError, which never contains a key.
    """
    if not path:
        return ()
    lines = read_file(path, "--resume-key-file")[:_MAX_FILE_BYTES].splitlines()
    keys = tuple(line for line in (line.strip() for line in lines) if line)
    if not 0 < len(keys) <= _MAX_KEYS or not all(map(_KEY.fullmatch, keys)):
        raise ValueError(
            f"--resume-key-file {path} must contain 1 to {_MAX_KEYS} keys, one per line, each of 32 to 256 "
            "ASCII characters without spaces. Create a key with `openssl rand -hex 32`."
        )
    return keys
