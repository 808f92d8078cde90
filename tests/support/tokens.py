"""Resume tokens as an owner of the key would write them."""

from __future__ import annotations

import hashlib
import hmac


def sealed(payload: bytes, key: bytes) -> bytes:
    """Return the token with a payload: the version and a tag (RFC 2104, truncated to 16 bytes) before it."""
    return b"e2" + hmac.digest(key, b"e2" + payload, hashlib.sha256)[:16] + payload
