"""The embedded default: a server inside this process, for commands that name none.

The one place where the client imports the server, and only when it is needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from earmark_client.errors import EarmarkError, NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def server(address: str | None) -> Iterator[str]:
    """Give `address`, or that of a server which lives in this process as long as the context.

    NotInstalledError when the server's parts are not installed.
    """
    if address is not None:
        yield address
        return
    try:
        embedded: Any = import_module("earmark_server.embedded")
        context = embedded.serve_in_thread()
        # The server's package is always there; what it is built on comes with the extra.
        started = context.__enter__()
    except ImportError as error:
        raise NotInstalledError(
            f"no --server was given, and this installation cannot start one itself (it lacks {error.name}): "
            "`pip install 'earmark[server]'`, or give --server HOST:PORT"
        ) from error
    except Exception as error:
        raise EarmarkError(f"the server inside this process did not start: {error}") from error
    try:
        yield started
    finally:
        context.__exit__(None, None, None)
