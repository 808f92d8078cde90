"""A server with a TLS certificate."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from earmark_server import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.certificates import Authority


@contextmanager
def serve_with_tls(
    model: Path, authority: Authority, *, valid_days: float = 1, **settings: Any
) -> Iterator[str]:
    """Run a server with a certificate; yield its address, with the name localhost."""
    pair = authority.sign(valid_days=valid_days)
    with serve_in_thread(
        model=(str(model),), tls_certificate=str(pair.certificate), tls_key=str(pair.key), **settings
    ) as address:
        yield address.replace("127.0.0.1", "localhost")
